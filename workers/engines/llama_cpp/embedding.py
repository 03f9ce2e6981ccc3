"""Embeds texts with a second context, apart from the one that generates."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from jobs.contract.errors import EngineError, InvalidRequestError, UnsupportedParameterError
from workers.engines.base import Pooling
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log

_SEQ_ID = 0
_MIN_CAPACITY = 512  # tokens


class Embedder:
    """Embeds one input at a time; opens its context at the first call, again for longer inputs."""

    def __init__(self, model: Pointer, context_length: int, num_threads: int) -> None:
        self._model = model
        self._context_length = context_length
        self._num_threads = num_threads
        self._context: Pointer = None
        self._requested = lib.LLAMA_POOLING_TYPE_UNSPECIFIED
        self._capacity = 0

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """See ``base.Engine``; ``pooling`` ``None``: the model's own, or the mean if it has none.

        Raises ``UnsupportedParameterError`` for a reranker, ``EngineError`` if llama.cpp fails.
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
        return [self._embed(ids) for ids in inputs]

    def close(self) -> None:
        if self._context:
            lib.llama_free(self._context)
        self._context = None

    def _open(self, pooling: int, num_tokens: int) -> None:
        """Have a context with this pooling and room for ``num_tokens``."""
        if self._context and self._requested == pooling and num_tokens <= self._capacity:
            return
        self.close()
        capacity = max(_MIN_CAPACITY, 1 << (num_tokens - 1).bit_length())
        self._capacity = min(capacity, self._context_length)
        llama_log.clear()
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
        # Pooling needs the whole input in one ubatch.
        params.n_ctx = params.n_batch = params.n_ubatch = self._capacity
        params.n_seq_max = 1
        params.embeddings = True
        params.pooling_type = pooling
        params.n_threads = params.n_threads_batch = self._num_threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        return lib.llama_init_from_model(self._model, params)

    def _embed(self, ids: list[int]) -> list[float]:
        memory = lib.llama_get_memory(self._context)
        if memory:
            lib.llama_memory_clear(memory, False)
        batch = Batch(len(ids))
        batch.add(np.asarray(ids, np.int32), 0, _SEQ_ID, num_outputs=len(ids))
        llama_log.clear()
        status = lib.llama_decode(self._context, batch.native)
        lib.llama_synchronize(self._context)
        llama_log.check_device()
        if status != 0:
            raise EngineError(f"embedding failed: {llama_log.warnings()}")
        pointer = lib.llama_get_embeddings_seq(self._context, _SEQ_ID)
        size = lib.llama_model_n_embd_out(self._model)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None, "the context has no pooled embedding"
        memory_view: Any = (ctypes.c_float * size).from_address(address)
        vector = np.frombuffer(memory_view, np.float32).astype(np.float64)
        values: list[float] = (vector / max(float(np.linalg.norm(vector)), 1e-12)).tolist()
        return values


def _native_pooling(pooling: Pooling | None) -> int:
    kinds: dict[Pooling | None, int] = {
        Pooling.MEAN: lib.LLAMA_POOLING_TYPE_MEAN,
        Pooling.CLS: lib.LLAMA_POOLING_TYPE_CLS,
        Pooling.LAST: lib.LLAMA_POOLING_TYPE_LAST,
        None: lib.LLAMA_POOLING_TYPE_UNSPECIFIED,
    }
    return kinds[pooling]
