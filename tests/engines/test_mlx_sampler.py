"""The vectorised sampler against plain numpy, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.contract.sampling import Sampling, draw_seed
from workers.engines import reference_sampler as reference
from workers.engines.base import Constraint
from workers.engines.dry import Repetitions
from workers.engines.mlx import device
from workers.engines.mlx.sampling import constrained_rows, filters, host_filters
from workers.engines.mlx.sampling.chain import choose_of, filter_settings
from workers.engines.mlx.sampling.filters import apply_filters
from workers.engines.mlx.sampling.sampler import BatchSampler, Draw

VOCAB_SIZE = 40
END_ID = 3
EPSILON = 1e-5
Logits = NDArray[np.float32]


@dataclass
class RunningRow:
    """A sequence as the sampler sees it: the token at ``position`` is on the device."""

    sampling: Sampling
    tokens: list[int] = field(default_factory=lambda: [0])
    mirostat_mu: float | None = None
    constraint: Constraint | None = None
    repetitions: Repetitions | None = None

    @property
    def position(self) -> int:
        return len(self.tokens)


def kept_by_reference(row: Logits, s: Sampling, slack: float) -> set[int]:
    """What the plain filters keep, their thresholds moved by ``slack``."""
    kept = reference.keep_top_n_sigma(row.astype(np.float64), s.top_n_sigma * (1 + slack))
    kept = reference.keep_top_k(kept, s.top_k)
    kept = reference.keep_typical(kept, moved(s.typical_p, slack))
    kept = reference.keep_top_p(kept, moved(s.top_p, slack))
    kept = reference.keep_min_p(kept, s.min_p * (1 - slack))
    return set(np.flatnonzero(kept > reference.IMPOSSIBLE))


def moved(share: float, slack: float) -> float:
    return share if share >= 1.0 else share + slack


def random_logits(seed: int, num_rows: int) -> Logits:
    generator = np.random.default_rng(seed)
    scale = generator.choice([0.1, 1.0, 5.0], size=(num_rows, 1))
    return (scale * generator.normal(size=(num_rows, VOCAB_SIZE))).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def few_candidates() -> Iterator[None]:
    """As with a large vocabulary: rows with ``top_k`` are not sorted as a whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "_FEWEST_CANDIDATES", 4)
        patch.setattr(host_filters, "_FIRST_TRY", 4)
        patch.setattr(host_filters, "_GROWTH", 2)
        yield


SHARES = st.floats(0.01, 1.0) | st.just(1.0)
FILTERS = st.builds(
    Sampling,
    top_n_sigma=st.just(-1.0) | st.floats(0.1, 4.0),
    top_k=st.integers(0, VOCAB_SIZE + 5),
    typical_p=SHARES,
    top_p=SHARES | st.just(0.0),
    min_p=st.floats(0.0, 1.0) | st.just(0.0),
)


@given(rows=st.lists(FILTERS, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_filters_keep_what_the_plain_ones_keep(rows: list[Sampling], seed: int) -> None:
    logits = random_logits(seed, len(rows))
    loose = [kept_by_reference(row, s, EPSILON) for row, s in zip(logits, rows, strict=True)]
    tight = [kept_by_reference(row, s, -EPSILON) for row, s in zip(logits, rows, strict=True)]
    assume(loose == tight)  # else a threshold is nearer than the arithmetic is exact
    filtered = np.array(apply_filters(mx.array(logits), filter_settings(rows)))
    for row, original, expected in zip(filtered, logits, tight, strict=True):
        assert set(np.flatnonzero(row > reference.IMPOSSIBLE)) == expected
        assert all(row[token] == original[token] for token in expected)


@pytest.mark.parametrize(
    ("sampling", "num_kept"),
    [
        (Sampling(top_k=3), 3),
        (Sampling(top_p=0.5), 2),  # reaching the mass is enough
        (Sampling(typical_p=0.5), 3),  # it must be exceeded, as in llama.cpp
        (Sampling(min_p=1.0), 4),
        (Sampling(top_p=0.0), 1),
    ],
)
def test_among_equals_the_thresholds_are_those_of_llama_cpp(
    sampling: Sampling, num_kept: int
) -> None:
    filtered = apply_filters(mx.zeros((1, 4)), filter_settings([sampling]))
    assert np.count_nonzero(np.array(filtered) > -math.inf) == num_kept


def draw(logits: Logits, rows: list[RunningRow], inputs: list[int] | None = None) -> Draw:
    sampler = BatchSampler(rows, frozenset({END_ID}))
    return sampler.draw(mx.array(logits), mx.array(inputs or [0] * len(rows)))


def draw_tokens(logits: Logits, rows: list[RunningRow], inputs: list[int]) -> list[int]:
    return [int(token) for token in np.array(draw(logits, rows, inputs).tokens)]


SAMPLINGS = st.builds(
    Sampling,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.0, 1e-30, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    repetition_context_size=st.sampled_from([0, 1, 4, 20]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB_SIZE - 1), st.floats(-5, 5), max_size=3),
    top_n_sigma=st.sampled_from([-1.0, 1.0]),
    xtc_probability=st.sampled_from([0.0, 0.5]),
    dynatemp_range=st.sampled_from([0.0, 0.4]),
    num_logprobs=st.sampled_from([None, 0, 2]),
    ignore_eos=st.booleans(),
)
TOKENS = st.integers(0, VOCAB_SIZE - 1)
ROWS = st.builds(RunningRow, SAMPLINGS, st.lists(TOKENS, max_size=30))


@given(rows=st.lists(ROWS, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_a_row_draws_alone_what_it_draws_in_company(rows: list[RunningRow], seed: int) -> None:
    logits = random_logits(seed, len(rows))
    inputs = [(seed + i) % VOCAB_SIZE for i in range(len(rows))]
    alone = [
        draw_tokens(logits[i : i + 1], [row], inputs[i : i + 1])[0] for i, row in enumerate(rows)
    ]
    assert draw_tokens(logits, rows, inputs) == alone


def greedy_by_reference(row: RunningRow, logits: Logits, newest: int) -> int:
    bias = row.sampling.logit_bias | ({END_ID: -np.inf} if row.sampling.ignore_eos else {})
    biased = reference.add_bias(logits.astype(np.float64), bias)
    return int(np.argmax(reference.penalise(biased, [*row.tokens, newest], row.sampling)))


PENALTIES = st.builds(
    Sampling,
    temperature=st.just(0.0),
    repetition_penalty=st.floats(0.5, 2.0),
    presence_penalty=st.floats(-2.0, 2.0),
    frequency_penalty=st.floats(-2.0, 2.0),
    repetition_context_size=st.integers(0, 35),
    logit_bias=st.dictionaries(TOKENS, st.floats(-100, 100), max_size=4),
    ignore_eos=st.booleans(),
)
PENALISED = st.builds(RunningRow, PENALTIES, st.lists(TOKENS, max_size=30))


@given(rows=st.lists(PENALISED, min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_bias_and_penalties_are_those_of_the_contract(rows: list[RunningRow], seed: int) -> None:
    logits = random_logits(seed, len(rows))
    inputs = [(seed + 7 * i) % VOCAB_SIZE for i in range(len(rows))]
    expected = [greedy_by_reference(row, logits[i], inputs[i]) for i, row in enumerate(rows)]
    assert draw_tokens(logits, rows, inputs) == expected


def test_the_draw_depends_on_seed_and_position_alone() -> None:
    logits = random_logits(1, 1)
    for position in (1, 2, 100):
        row = RunningRow(Sampling(seed=11, temperature=0.7), [0] * position)
        key = mx.random.key(draw_seed(11, position + 1))
        expected = mx.random.categorical(mx.array(logits[0]) / 0.7, key=key).item()
        assert draw_tokens(logits, [row], [0]) == [expected]


def test_log_probabilities_are_those_of_the_raw_logits_for_who_asked() -> None:
    logits = random_logits(2, 3)
    biased = Sampling(temperature=0.0, logit_bias={7: 1000.0}, num_logprobs=3)
    asked = [RunningRow(Sampling()), RunningRow(biased), RunningRow(Sampling(num_logprobs=0))]
    found = draw(logits, asked).logprobs
    assert found is not None
    assert found.slots == {1: 0, 2: 1}
    expected = reference.log_softmax(logits[1].astype(np.float64))
    assert np.array(found.chosen)[0] == pytest.approx(expected[7], abs=1e-5)
    assert list(np.array(found.top_ids)[0]) == list(np.argsort(-expected)[:3])
    assert np.array(found.top_logprobs)[0] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-5)
    assert draw(logits, [RunningRow(Sampling())] * 3).logprobs is None


@pytest.mark.parametrize("top_k", [1, 5, 30])
def test_among_equals_candidates_are_those_of_a_full_sort(top_k: int) -> None:
    """Logits of 16 bits are often equal."""
    logits = mx.array(np.round(random_logits(1, 4)))
    logits[2] = mx.where(mx.arange(VOCAB_SIZE) % 2 == 0, 0.0, -0.0)
    logits[3, 7:] = -math.inf
    settings = filter_settings([Sampling(top_k=top_k, top_p=0.9)] * 4)
    assert settings.num_candidates is not None
    found = apply_filters(logits, settings)
    assert mx.array_equal(found, apply_filters(logits, replace(settings, num_candidates=None)))


@pytest.mark.skipif(not device.is_gpu(), reason="compiling for a CPU takes half a minute")
def test_a_compiled_chain_draws_the_same_tokens() -> None:
    rows = [
        RunningRow(Sampling(seed=1, top_k=20, top_p=0.9, temperature=0.8)),
        RunningRow(Sampling(temperature=0.0)),
        RunningRow(Sampling(seed=2, top_k=3, xtc_probability=1.0, xtc_threshold=0.1)),
    ]
    sampler = BatchSampler(rows, frozenset())
    plain = sampler._choose_among
    sampler._choose_among = choose_of(sampler._chain, is_compiled=True)
    for seed in range(5):
        logits = mx.array(random_logits(seed, 3))
        rest = sampler._keys(), sampler._are_greedy, sampler._parameters()
        assert sampler._choose(logits).tolist() == plain(logits, *rest).tolist()


@pytest.mark.parametrize("width", [40, 41, 47])
def test_masks_arrive_on_a_gpu_as_they_were_packed(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd:
        def allowed(self) -> NDArray[np.bool_]:
            return np.arange(VOCAB_SIZE) % 3 == 1

        def accept(self, token_id: int) -> None: ...

    rows = [
        RunningRow(Sampling()),
        RunningRow(Sampling(), constraint=Odd()),
        RunningRow(Sampling()),
    ]
    masked = []
    for is_gpu in (False, True):
        monkeypatch.setattr(device, "is_gpu", lambda is_gpu=is_gpu: is_gpu)
        mask = constrained_rows.ConstrainedRows(rows).mask
        masked.append(np.array(mask(mx.zeros((3, width)), {})))
    expected = np.zeros((3, width))
    expected[1, np.arange(width) % 3 != 1] = expected[1, VOCAB_SIZE:] = -math.inf
    assert np.array_equal(masked, [expected, expected])
