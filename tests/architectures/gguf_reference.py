"""Tiny GGUF files of every kind of memory, and plain llama.cpp as the reference for their text."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence as ListLike
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from scripts.modelfiles.architectures import ARCHITECTURES, write_architecture
from scripts.modelfiles.vocabulary import TokenKind, Vocabulary, read_model_vocabulary
from tests.engines.driving import GREEDY, Transcript, run, sequence
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

# The order of sums differs between batches; the distance of unequal states is far larger.
NOISE = 0.05
CONTEXT = 4096
REFUSED = {
    **dict.fromkeys(("t5",), "an encoder-decoder model"),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), "a diffusion model"),
}
ENCODERS = [
    name
    for name, facts in ARCHITECTURES.items()
    if "attention.causal" in facts or name == "t5encoder"
]
GENERATING = [name for name in ARCHITECTURES if name not in (*REFUSED, *ENCODERS)]
_DEMO = Path(__file__).parents[2] / "models" / "demo"


@functools.cache
def vocabulary() -> Vocabulary:
    """The demo model's, and tokens that llama.cpp wants in a file of Phi 3."""
    demo = read_model_vocabulary(_DEMO)
    tokens = [*demo.tokens, "<unk>", "<s>", "</s>"]
    return replace(demo, tokens=tokens, kinds=[*demo.kinds, *[TokenKind.CONTROL] * 3])


@functools.cache
def file_of(name: str) -> Path:
    """The file of an architecture, written once."""
    return write_architecture(_folder() / f"{name}.gguf", name, vocabulary())


@functools.cache
def _folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="architectures-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def opened(name: str, **options: Any) -> LlamaCppEngine:
    """An engine on the file of this architecture."""
    given: dict[str, Any] = {"context_length": CONTEXT, "num_threads": 1, **options}
    return open_llama_cpp(file_of(name), EngineOptions(**given), lambda fraction: None)


def vectors(name: str, inputs: ListLike[ListLike[int]]) -> npt.NDArray[np.float64]:
    """Embeddings by plain ``llama_cpp.Llama``, of length 1; the mean if no pooling is given."""
    pooling = lib.LLAMA_POOLING_TYPE_UNSPECIFIED
    if name not in ENCODERS or "pooling_type" not in ARCHITECTURES[name]:
        pooling = lib.LLAMA_POOLING_TYPE_MEAN
    model: Any = llama_cpp.Llama(
        str(file_of(name)), embedding=True, pooling_type=pooling, n_ctx=512, n_ubatch=512,
        n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False,
    )  # fmt: skip
    found = [_vector(model, ids) for ids in inputs]
    model.close()
    return np.array(found)


def _vector(model: Any, ids: ListLike[int]) -> npt.NDArray[np.float64]:
    memory = lib.llama_get_memory(model.ctx)
    if memory:
        lib.llama_memory_clear(memory, True)
    model._batch.reset()
    model._batch.add_sequence(ids, 0, True)
    model._ctx.decode(model._batch)
    values = lib.llama_get_embeddings_seq(model.ctx, 0)[: model.n_embd()]
    return np.array(values) / np.linalg.norm(values)


class Reference:
    """One sequence at a time in plain ``llama_cpp.Llama``, greedily, read from its beginning."""

    def __init__(self, name: str) -> None:
        self._llama: Any = llama_cpp.Llama(
            str(file_of(name)),
            n_ctx=CONTEXT,
            n_threads=1,
            n_threads_batch=1,
            flash_attn=True,
            verbose=False,
        )
        self._vocab_size: int = self._llama.n_vocab()

    def close(self) -> None:
        self._llama.close()

    def differs(self, prompt: ListLike[int], tokens: ListLike[int]) -> str | None:
        """What ``tokens`` have that this model would not say after ``prompt``; ``None``: nothing.

        A token whose log-probability is nearly the best one's may stand for it.
        """
        for place, gap in enumerate(self.gaps(prompt, tokens)):
            if gap > NOISE:
                return f"token {place} of {len(tokens)} is {gap:.3f} nats below the best one"
        return None

    def gaps(self, prompt: ListLike[int], tokens: ListLike[int]) -> Iterator[float]:
        """How far the log-probability of each of ``tokens`` is below the best one, in nats."""
        # By ``reset`` alone, recurrent models of this version would go on from their old state.
        lib.llama_memory_clear(lib.llama_get_memory(self._llama.ctx), True)
        self._llama.reset()
        self._llama.eval(list(prompt))
        for token in tokens:
            logits = self._logits()
            yield float(logits.max() - logits[token])
            self._llama.eval([token])

    def _logits(self) -> npt.NDArray[np.float32]:
        pointer = lib.llama_get_logits_ith(self._llama.ctx, -1)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None
        row: Any = (ctypes.c_float * self._vocab_size).from_address(address)
        return np.frombuffer(row, np.float32)


def prompt_of(seed: int, num_tokens: int, common: ListLike[int] = ()) -> list[int]:
    """A prompt of ``common`` and some ordinary tokens."""
    draws = np.random.default_rng(seed).integers(3, 256, num_tokens - len(common))
    return [*common, *(int(token) for token in draws)]


def answers(engine: LlamaCppEngine, prompts: ListLike[ListLike[int]], num: int) -> list[Transcript]:
    """``num`` greedy tokens after each prompt, all submitted together."""
    return run(engine, [sequence(prompt, num, GREEDY) for prompt in prompts])
