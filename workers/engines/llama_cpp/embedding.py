"""Embeds texts with a second context, apart from the one that generates.

llama.cpp pools what one pass has computed. A text in pieces: of a mean it is put together by their
lengths, of the last token it is the last piece's, of the first token the first one's.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.contract.errors import (
    EngineError,
    InsufficientMemoryError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from workers.engines.base import Pooling
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.load.cell_plan import ContextCost
from workers.engines.llama_cpp.load.room import SpareMemory
from workers.engines.shared.chunk_budget import ChunkBudget

_SEQ_ID = 0
_MIN_CAPACITY = 512  # tokens
_LARGEST_PIECE = 512

Vector = npt.NDArray[np.float64]


class Embedder:
    """Embeds one input at a time; opens its context at the first call, again for longer inputs."""

    def __init__(
        self,
        model: Pointer,
        context_length: int,
        num_threads: int,
        *,
        spare: SpareMemory,
        cost: ContextCost | None = None,
        budget: ChunkBudget | None = None,
    ) -> None:
        """``spare``: for the context, ``cost``: about what it takes. ``budget``: of a piece;
        ``None``: texts are read whole, because their tokens see the ones after them."""
        self._cost = cost
        self._spare = spare
        self.num_bytes = 0  # of the context
        self._budget = budget
        self._model = model
        self._context_length = context_length
        self._num_threads = num_threads
        self._context: Pointer = None
        self._requested = lib.LLAMA_POOLING_TYPE_UNSPECIFIED
        self._capacity = 0

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """See ``base.Engine``; ``pooling`` ``None``: the model's own, or the mean if it has none.

        Raises ``UnsupportedParameterError`` for a reranker, ``InsufficientMemoryError`` for texts
        whose context does not fit, ``EngineError`` if llama.cpp fails.
        """
        vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        for ids in inputs:
            if not 0 < len(ids) <= self._context_length:
                limit = self._context_length
                message = f"an input has {len(ids)} tokens; 1 to {limit} can be embedded"
                raise InvalidRequestError(message, "input")
            if min(ids) < 0 or max(ids) >= vocab_size:
                message = f"an input has token ids outside the vocabulary (0 to {vocab_size - 1})"
                raise InvalidRequestError(message, "input")
        self._open(_native_pooling(pooling), max(map(len, inputs), default=1))
        return [self._embed(ids, on_piece or _ignore) for ids in inputs]

    def close(self) -> None:
        if self._context:
            lib.llama_free(self._context)
        self._context = None
        self._spare.give_back(self.num_bytes)
        self.num_bytes = 0

    def _open(self, pooling: int, num_tokens: int) -> None:
        """Have a context with this pooling and room for ``num_tokens``."""
        if self._context and self._requested == pooling and num_tokens <= self._capacity:
            return
        self.close()
        capacity = max(_MIN_CAPACITY, 1 << (num_tokens - 1).bit_length())
        self._capacity = min(capacity, self._context_length)
        self._context = self._new_context(pooling)
        if self._pooling_in_use == lib.LLAMA_POOLING_TYPE_NONE:
            self.close()
            self._context = self._new_context(lib.LLAMA_POOLING_TYPE_MEAN)
        if not self._context:
            raise EngineError(f"no memory to embed: {llama_log.warnings()}")
        if self._pooling_in_use == lib.LLAMA_POOLING_TYPE_RANK:
            # A reranker returns one score, not a vector of the model's width.
            self.close()
            raise UnsupportedParameterError("this model ranks pairs of texts; it has no vectors")
        self._requested = pooling

    @property
    def _pooling_in_use(self) -> int | None:
        return lib.llama_pooling_type(self._context) if self._context else None

    def _new_context(self, pooling: int) -> Pointer:
        params: Any = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self._capacity
        if self._budget is not None:
            params.n_batch = params.n_ubatch = min(self._capacity, _LARGEST_PIECE)
        params.n_seq_max = 1
        params.embeddings = True
        params.pooling_type = pooling
        params.n_threads = params.n_threads_batch = self._num_threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        purpose = f"to embed {self._capacity} tokens"
        expected = 0 if self._cost is None else self._cost.bytes_for(self._capacity)
        self._spare.take(expected, purpose)
        llama_log.clear()
        context = lib.llama_init_from_model(self._model, params)
        self._spare.give_back(expected)
        num_bytes = llama_log.cell_bytes() + llama_log.other_bytes() if context else 0
        try:
            self._spare.take(num_bytes, purpose)
        except InsufficientMemoryError:
            lib.llama_free(context)
            raise
        self.num_bytes = num_bytes
        return context

    def _embed(self, ids: list[int], on_piece: Callable[[], None]) -> list[float]:
        memory = lib.llama_get_memory(self._context)
        if memory:
            lib.llama_memory_clear(memory, False)
        pooling, num_done = self._pooling_in_use, 0
        total = np.zeros(lib.llama_model_n_embd_out(self._model))
        while num_done < len(ids):
            on_piece()
            num_tokens = len(ids) if self._budget is None else self._budget.num_tokens
            piece = ids[num_done : num_done + num_tokens]
            vector = self._embed_piece(piece, num_done)
            num_done += len(piece)
            if pooling == lib.LLAMA_POOLING_TYPE_MEAN:
                total += vector * len(piece)
            else:
                total = vector
            if pooling == lib.LLAMA_POOLING_TYPE_CLS:
                break
        values: list[float] = (total / max(float(np.linalg.norm(total)), 1e-12)).tolist()
        return values

    def _embed_piece(self, ids: list[int], position: int) -> Vector:
        """The pooled vector of a piece that begins at ``position``."""
        batch = Batch(len(ids))
        batch.add(np.asarray(ids, np.int32), position, _SEQ_ID, num_outputs=len(ids))
        started = time.perf_counter()
        llama_log.clear()
        status = lib.llama_decode(self._context, batch.native)
        lib.llama_synchronize(self._context)
        llama_log.check_device()
        if status != 0:
            raise EngineError(f"embedding failed: {llama_log.warnings()}")
        if self._budget is not None:
            self._budget.record(len(ids), time.perf_counter() - started)
        pointer = lib.llama_get_embeddings_seq(self._context, _SEQ_ID)
        size = lib.llama_model_n_embd_out(self._model)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None, "the context has no pooled embedding"
        memory_view: Any = (ctypes.c_float * size).from_address(address)
        return np.frombuffer(memory_view, np.float32).astype(np.float64)


def _ignore() -> None:
    """Nobody waits for a sign of life."""


def _native_pooling(pooling: Pooling | None) -> int:
    kinds: dict[Pooling | None, int] = {
        Pooling.MEAN: lib.LLAMA_POOLING_TYPE_MEAN,
        Pooling.CLS: lib.LLAMA_POOLING_TYPE_CLS,
        Pooling.LAST: lib.LLAMA_POOLING_TYPE_LAST,
        None: lib.LLAMA_POOLING_TYPE_UNSPECIFIED,
    }
    return kinds[pooling]
