"""Continuous batching on llama.cpp: one ``llama_decode`` per step for all running sequences."""

from __future__ import annotations

import time
from collections.abc import Sequence as ListLike
from pathlib import Path

from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.contract.sampling import Sampling
from workers.engines.base import (
    EngineOptions,
    ModelInfo,
    OnProgress,
    Pooling,
    Sequence,
    StepEvent,
)
from workers.engines.llama_cpp.batch.chunk_size import ChunkSize
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.batch.decoding import Decoder
from workers.engines.llama_cpp.batch.prefill_budget import Part
from workers.engines.llama_cpp.batch.running import Running, make_running
from workers.engines.llama_cpp.batch.scheduler import Scheduler
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.prefixes import PrefixCache
from workers.engines.llama_cpp.load.loaded_model import Native, load_native
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.engines.llama_cpp.sampling.sampler import Sampler, check_sampling


def open_llama_cpp(path: Path, options: EngineOptions, on_progress: OnProgress) -> LlamaCppEngine:
    """Load the GGUF file at ``path``. Raises ``ModelLoadError`` with the reason.

    Of a split model (``…-00001-of-00003.gguf``), ``path`` is the first part. An exception from
    ``on_progress`` stops the load and comes out of this function.
    """
    return LlamaCppEngine(load_native(path, options, on_progress))


class LlamaCppEngine:
    """Implements ``workers.engines.base.Engine``; made by ``open_llama_cpp``."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._info = native.info
        self._end_ids = native.tokenizer.end_ids
        self._adapters = native.adapters
        self._drafter = native.drafter
        self._layout = native.layout
        self._memory = native.layout.memory
        self._shelf = native.shelf
        self._prefixes = self._new_prefixes()
        num_slots, tile = native.info.num_slots, native.tiles.num_rows
        batch = Batch(lib.llama_n_batch(self._memory.context))
        self._decoder = Decoder(native, batch, self._remove)
        largest = batch.capacity - num_slots * (1 + native.num_drafts) - tile
        self._chunk_size = ChunkSize(largest, native.step_budget_s, tile)
        self._scheduler = Scheduler(
            self._memory, self._prefixes, native.shelf, num_slots, tile, largest
        )
        self._is_closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> LlamaCppTokenizer:
        return self._native.tokenizer

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def check(self, sampling: Sampling) -> None:
        """Raise ``InvalidRequestError`` for biases of tokens that do not exist."""
        check_sampling(sampling, self._info.vocab_size)

    def submit(self, sequence: Sequence) -> None:
        """See ``base.Engine``. Raises ``InvalidRequestError`` for a prompt that cannot run."""
        _check_prompt(sequence.prompt, self._info)
        adapter = sequence.adapter or self._native.adapter
        if adapter is not None:
            self._adapters.load(adapter)
        sampler = Sampler(
            sequence.sampling,
            sequence.prompt,
            vocab_size=self._info.vocab_size,
            end_ids=self._end_ids,
            context_length=self._info.context_length,
            mu=sequence.mirostat_mu,
            constraint=sequence.constraint,
        )
        self._scheduler.enqueue(make_running(sequence, adapter, self._info.context_length, sampler))

    def abort(self, sequence_id: int) -> None:
        """See ``base.Engine``; the slot and its KV cells are free for the next step."""
        run = self._scheduler.find(sequence_id)
        if run is not None:
            self._remove(run, True)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``; others in the same call are read again."""
        if self._native.call_stop is not None:
            self._native.call_stop.stop(sequence_id)

    def step(self) -> list[StepEvent]:
        """See ``base.Engine``."""
        self._lay_out_anew_if_due()
        self._scheduler.admit()
        if self._lay_out_anew_if_due():
            self._scheduler.admit()
        parts = self._scheduler.plan(self._chunk_size.num_tokens, can_stop=self._decoder.can_stop)
        self._add_drafts(parts)
        parts = self._scheduler.fit(parts)
        if not parts:
            return []
        self._share_cores()
        events = self._timed(parts)
        if self._native.threads is not None:
            self._native.threads.note_step(time.monotonic())
        return events

    def _timed(self, parts: list[Part]) -> list[StepEvent]:
        started = time.perf_counter()
        events = self._decoder.decode(parts)
        elapsed_s = time.perf_counter() - started
        if not self._decoder.was_stopped:
            read = [part.num_tokens + part.num_padding for part in parts if part.num_tokens > 1]
            self._chunk_size.observe(sum(read), len(parts) - len(read), elapsed_s)
            if not read:
                self._layout.note_decoded([part.run for part in parts], self._scheduler.all_runs)
        return events

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """See ``base.Engine``; by a second context, made at the first call."""
        return self._native.embedder.embed(inputs, pooling)

    def close(self) -> None:
        """See ``base.Engine``; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._scheduler.clear()
        if self._shelf is not None:
            self._prefixes.evict_all()
            self._shelf.close()
        self._native.close()

    @property
    def cache_bytes(self) -> int:
        """See ``base.Engine``: llama.cpp allocates once, when it loads."""
        return 0

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``."""
        message = "cache_limit: llama.cpp keeps no freed memory"
        raise UnsupportedParameterError(message, "cache_limit")

    def _lay_out_anew_if_due(self) -> bool:
        """Between ranges and pool; the sequences wait, and find what they had on the shelf."""
        if not (self._scheduler.needs_pool or self._layout.wants_ranges):
            return False
        self._scheduler.vacate()
        self._prefixes.evict_all()
        self._layout.switch()
        self._memory = self._layout.memory
        self._prefixes = self._new_prefixes()
        self._decoder.use(self._memory)
        self._scheduler.use(self._memory, self._prefixes)
        if self._shelf is not None:
            self._shelf.use(self._memory)
        return True

    def _new_prefixes(self) -> PrefixCache:
        num_cells = self._memory.num_cells
        return PrefixCache(
            self._memory,
            num_cells if self._memory.has_ranges else self._native.num_kept_cells,
            can_trim=self._native.can_trim,
            on_evicted=None if self._shelf is None else self._shelf.put,
        )

    def _share_cores(self) -> None:
        if self._native.threads is None:
            return
        num_threads = self._native.threads.look(time.monotonic())
        lib.llama_set_n_threads(self._memory.context, num_threads, num_threads)

    def _add_drafts(self, parts: list[Part]) -> None:
        if self._drafter is None:
            return
        decoding = {p.run.sequence.sequence_id: p for p in parts if p.run.num_uncomputed == 1}
        guesses = self._drafter.propose([part.run for part in decoding.values()])
        for sequence_id, guess in guesses.items():
            decoding[sequence_id].drafts = guess

    def _remove(self, run: Running, is_kept: bool) -> None:
        if self._drafter is not None:
            self._drafter.forget(run)
        self._scheduler.remove(run, is_kept=is_kept)


def _check_prompt(prompt: ListLike[int], info: ModelInfo) -> None:
    if not prompt:
        raise InvalidRequestError("the prompt is empty", "prompt")
    if len(prompt) >= info.context_length:
        message = f"the prompt has {len(prompt)} tokens, the context holds {info.context_length}"
        raise ContextLengthExceededError(message, "prompt")
    if min(prompt) < 0 or max(prompt) >= info.vocab_size:
        message = f"the prompt has token ids outside the vocabulary (0 to {info.vocab_size - 1})"
        raise InvalidRequestError(message, "prompt")
