"""Our samplers beside llama.cpp's own, on the same logits: probabilities of what can be drawn."""

from __future__ import annotations

import ctypes
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.sampling import Sampling
from workers.engines import reference_sampler
from workers.engines.dry import BreakerFinder, Repetitions
from workers.engines.fake import FakeTokenizer

lib = pytest.importorskip("llama_cpp.llama_cpp")

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
CANDIDATE = np.dtype([("id", "i4"), ("logit", "f4"), ("p", "f4")])
CONTEXT_LENGTH = 512
NEGLIGIBLE = 1e-30

Probabilities = NDArray[np.float64]
OurProbabilities = Callable[["Case"], Probabilities]


@dataclass(frozen=True)
class Case:
    """What a token is drawn from; DRY's breakers are the tokens of ``vocabulary``."""

    sampling: Sampling
    tokens: list[int]
    logits: NDArray[np.float32]


class Vocabulary:
    """The demo model's, without the model."""

    def __init__(self) -> None:
        from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer

        params = lib.llama_model_default_params()
        params.vocab_only = True
        self.model = lib.llama_model_load_from_file(str(DEMO).encode(), params)
        self.native = lib.llama_model_get_vocab(self.model)
        self.tokenizer = LlamaCppTokenizer(self.model)
        self.size = self.tokenizer.vocab_size
        self.breakers = BreakerFinder(self.tokenizer)


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Vocabulary]:
    found = Vocabulary()
    yield found
    lib.llama_model_free(found.model)


def by_llama_cpp(case: Case, vocabulary: Vocabulary) -> Probabilities:
    """llama-server's order: penalties, DRY, top_n_sigma, ..., XTC, temperature."""
    s, chain = case.sampling, lib.llama_sampler_chain_init(lib.llama_sampler_chain_params(True))
    for sampler in [*_looking_back(s, vocabulary), *_filters(s, len(case.tokens))]:
        lib.llama_sampler_chain_add(chain, sampler)
    for token in case.tokens:
        lib.llama_sampler_accept(chain, token)
    table = np.zeros(vocabulary.size, CANDIDATE)
    table["id"], table["logit"] = np.arange(vocabulary.size), case.logits
    data = table.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
    array = lib.llama_token_data_array(data, len(table), -1, False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    lib.llama_sampler_free(chain)
    # Some samplers move the beginning of the list.
    size = array.size * CANDIDATE.itemsize
    address = ctypes.addressof(array.data.contents)
    left = np.frombuffer((ctypes.c_char * size).from_address(address), CANDIDATE)
    found = np.zeros(vocabulary.size)
    found[left["id"]] = left["p"]
    return found


def _looking_back(s: Sampling, vocabulary: Vocabulary) -> list[Any]:
    texts = [text.encode() for text in s.dry_sequence_breakers]
    breakers = (ctypes.c_char_p * len(texts))(*texts)
    num = CONTEXT_LENGTH if s.dry_penalty_last_n < 0 else s.dry_penalty_last_n
    penalties = (s.repetition_penalty, s.frequency_penalty, s.presence_penalty)
    dry = (s.dry_multiplier, s.dry_base, s.dry_allowed_length, num, breakers, len(texts))
    return [
        lib.llama_sampler_init_penalties(vocabulary.size, s.repetition_context_size, *penalties),
        lib.llama_sampler_init_dry(vocabulary.native, *dry),
    ]


def _filters(s: Sampling, position: int) -> list[Any]:
    """``XTC`` draws whether it acts by itself there; here, that is decided as in our engines."""
    # Without it, what top_n_sigma leaves at -inf makes typical_p's entropy NaN.
    typical = [lib.llama_sampler_init_min_p(NEGLIGIBLE, 1)] if s.typical_p < 1.0 else []
    xtc = [lib.llama_sampler_init_xtc(1.0, s.xtc_threshold, 0, 7)]
    return [
        lib.llama_sampler_init_top_n_sigma(s.top_n_sigma),
        lib.llama_sampler_init_top_k(s.top_k),
        *typical,
        lib.llama_sampler_init_typical(s.typical_p, 0),
        lib.llama_sampler_init_top_p(s.top_p, 0),
        lib.llama_sampler_init_min_p(s.min_p, 0),
        *(xtc if s.has_xtc_at(position) else []),
        lib.llama_sampler_init_temp_ext(s.temperature, s.dynatemp_range, s.dynatemp_exponent),
        lib.llama_sampler_init_dist(1),
    ]


def by_reference(cases: Sequence[Case], vocabulary: Vocabulary) -> list[Probabilities]:
    found = []
    for case in cases:
        s, breakers = case.sampling, vocabulary.breakers.of(case.sampling)
        logits = case.logits.astype(np.float64)
        biased = reference_sampler.disfavour(logits, case.tokens, s, breakers)
        kept = reference_sampler.apply_filters(biased, s, len(case.tokens))
        found.append(reference_sampler.softmax(reference_sampler.heat(kept, s)))
    return found


@dataclass
class Row:
    """A running sequence as MLX's sampler reads it."""

    sampling: Sampling
    tokens: list[int]
    repetitions: Repetitions | None
    mirostat_mu: float | None = None
    constraint: None = None

    @property
    def position(self) -> int:
        return len(self.tokens) - 1


def by_mlx(cases: Sequence[Case], vocabulary: Vocabulary) -> list[Probabilities]:
    """All rows of one batch."""
    if importlib.util.find_spec("mlx") is None:
        pytest.skip("mlx is not installed")
    import mlx.core as mx

    from workers.engines.mlx.sampling.sampler import BatchSampler

    rows = [
        Row(case.sampling, case.tokens, vocabulary.breakers.repetitions(case.sampling))
        for case in cases
    ]
    sampler = BatchSampler(rows, frozenset())
    logits = mx.array(np.stack([case.logits for case in cases]))
    inputs = mx.array([case.tokens[-1] for case in cases])
    final = sampler.final(sampler.disfavour(logits, inputs, {}))
    return list(np.array(mx.softmax(final, axis=-1)).astype(np.float64))


def cases(seed: int, num: int, vocab_size: int, **fixed: Any) -> list[Case]:
    """Any settings; where ``fixed`` has some, all others are neutral."""
    choose = random.Random(seed)
    found = []
    for _ in range(num):
        generator = np.random.default_rng(choose.randrange(2**32))
        logits = choose.choice([0.5, 1.0, 3.0, 6.0]) * generator.standard_normal(vocab_size)
        few = choose.sample(range(vocab_size), 5)
        tokens = [choose.choice(few) for _ in range(60)]
        sampling = Sampling(seed=choose.randrange(2**32), **(fixed or _any_settings(choose)))
        found.append(Case(sampling, tokens, logits.astype(np.float32)))
    return found


def _any_settings(choose: random.Random) -> dict[str, Any]:
    values: dict[str, list[Any]] = {
        "temperature": [0.3, 0.8, 1.0, 1.7],
        "dynatemp_range": [0.0, 0.3, 1.0, 3.0],
        "dynatemp_exponent": [1.0, 0.5, 2.0],
        "top_n_sigma": [-1.0, 0.5, 1.0, 2.0, 3.0],
        "top_k": [0, 5, 40],
        "typical_p": [1.0, 0.5, 0.9],
        "top_p": [1.0, 0.7, 0.95],
        "min_p": [0.0, 0.05, 0.2],
        "xtc_probability": [0.0, 0.5, 1.0],
        "xtc_threshold": [0.02, 0.05, 0.1, 0.3],
        "repetition_penalty": [1.0, 1.2],
        "frequency_penalty": [0.0, 0.3],
        "repetition_context_size": [64],
        "dry_multiplier": [0.0, 0.8],
        "dry_base": [1.0, 1.75, 3.0],
        "dry_allowed_length": [0, 1, 2],
        "dry_penalty_last_n": [-1, 10, 40],
        "dry_sequence_breakers": [("\n", ":", '"', "*"), (" the", "a"), ("Hello", "and so")],
    }
    return {name: choose.choice(options) for name, options in values.items()}


ALONE: dict[str, dict[str, Any]] = {
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    "xtc of few": {"xtc_probability": 0.5, "xtc_threshold": 0.2},
    "dry": {"dry_multiplier": 0.8},
    "dry of all": {"dry_multiplier": 2.0, "dry_allowed_length": 0, "dry_base": 1.2},
    "dry of the last": {"dry_multiplier": 1.0, "dry_penalty_last_n": 12},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "dynamic temperature": {"dynatemp_range": 0.7, "dynatemp_exponent": 1.5},
    "down to none": {"temperature": 0.5, "dynatemp_range": 0.8},
    "few of many": {"top_n_sigma": 1.0, "dynatemp_range": 0.7},
}


def distance(one: Probabilities, other: Probabilities) -> float:
    """Of two distributions: half the sum of the differences."""
    return float(np.abs(one - other).sum()) / 2


@pytest.mark.parametrize("ours", [by_reference, by_mlx])
@pytest.mark.parametrize("settings", ALONE.values(), ids=ALONE)
def test_each_sampler_leaves_what_llama_cpps_leaves(
    vocabulary: Vocabulary, ours: Any, settings: dict[str, Any]
) -> None:
    some = cases(1, 40, vocabulary.size, **settings)
    found = ours(some, vocabulary)
    for case, probabilities in zip(some, found, strict=True):
        assert distance(probabilities, by_llama_cpp(case, vocabulary)) < 1e-5, case.sampling


@pytest.mark.parametrize("ours", [by_reference, by_mlx])
def test_all_together_in_their_order_leave_what_llama_cpps_leave(
    vocabulary: Vocabulary, ours: Any
) -> None:
    some = cases(2, 400, vocabulary.size)
    found = ours(some, vocabulary)
    for case, probabilities in zip(some, found, strict=True):
        assert distance(probabilities, by_llama_cpp(case, vocabulary)) < 1e-5, case.sampling


def test_breakers_are_found_in_any_vocabulary() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_sequence_breakers=("ab", "<|im_end|>"))
    found = BreakerFinder(FakeTokenizer()).of(sampling)
    assert found[ord("a")] == ((ord("b"),),)
    assert () in found[258]
