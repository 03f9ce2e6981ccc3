"""Continuous batching on llama.cpp: one decode pass per step for all running sequences."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from collections.abc import Sequence as ListLike
from pathlib import Path

from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    ModelLoadError,
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
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.batch.decoding import Decoder
from workers.engines.llama_cpp.batch.prefill_budget import Part
from workers.engines.llama_cpp.batch.running import Running, make_running
from workers.engines.llama_cpp.batch.scheduler import Scheduler
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.prefixes import PrefixCache
from workers.engines.llama_cpp.load.loaded_model import LoadedEncoder, LoadedModel, load_gguf
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.engines.llama_cpp.sampling.dry import DrySamplers
from workers.engines.llama_cpp.sampling.sampler import Sampler, check_sampling
from workers.engines.shared.chunk_budget import ChunkBudget

# After such a rest a GPU may be slow, and some of the weights elsewhere.
_REST_S = 1.0


def open_llama_cpp(path: Path, options: EngineOptions, on_progress: OnProgress) -> LlamaCppEngine:
    """Load the GGUF file at ``path``, the first part of a split model (``…-00001-of-00003.gguf``).

    Raises ``ModelLoadError`` with the reason; an encoder is one (see ``open_gguf``). An exception
    from ``on_progress`` stops the load and is raised again here.
    """
    loaded = load_gguf(path, options, on_progress)
    if isinstance(loaded, LoadedEncoder):
        loaded.close()
        raise ModelLoadError(f"{path.name}: an encoder, it does not generate")
    return LlamaCppEngine(loaded)


class LlamaCppEngine:
    """Implements ``workers.engines.base.Engine``; made by ``open_llama_cpp``."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._info = loaded.info
        self._end_ids = loaded.tokenizer.end_ids
        self._adapters = loaded.adapters
        self._drafter = loaded.drafter
        self._memory = loaded.memory
        self._host_cache = loaded.host_cache
        self._prefixes = PrefixCache(
            loaded.memory,
            loaded.num_kept_cells,
            on_evicted=None if loaded.host_cache is None else loaded.host_cache.put,
        )
        num_slots, tuning = loaded.info.num_slots, loaded.tuning
        batch = Batch(lib.llama_n_batch(self._memory.context))
        self._decoder = Decoder(loaded, batch, self._remove)
        largest = batch.capacity - num_slots * (1 + loaded.num_drafts) - tuning.tile
        is_gpu = not loaded.is_on_cpu
        self._budget = ChunkBudget(
            loaded.step_budget_s, largest=largest, tile=tuning.tile, is_gpu=is_gpu
        )
        self._rest_s = _REST_S if is_gpu else math.inf
        self._worked_until = -math.inf
        self._scheduler = Scheduler(
            self._memory,
            self._prefixes,
            loaded.host_cache,
            num_slots,
            tuning,
            largest,
            is_on_cpu=loaded.is_on_cpu,
        )
        vocab = lib.llama_model_get_vocab(loaded.model)
        self._dry = DrySamplers(vocab, loaded.info.context_length)
        self._is_closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> LlamaCppTokenizer:
        return self._loaded.tokenizer

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def check(self, sampling: Sampling) -> None:
        """Raise ``InvalidRequestError`` for a logit bias of an unknown token."""
        check_sampling(sampling, self._info.vocab_size)
        self._dry.prepare(sampling)

    def submit(self, sequence: Sequence) -> None:
        """See ``base.Engine``. Raises ``InvalidRequestError`` for a prompt that cannot run."""
        _check_prompt(sequence.prompt, self._info)
        adapter = sequence.adapter or self._loaded.adapter
        if adapter is not None:
            self._adapters.load(adapter)
        sampler = Sampler(
            sequence.sampling,
            sequence.prompt,
            vocab_size=self._info.vocab_size,
            end_ids=self._end_ids,
            context_length=self._info.context_length,
            dry=self._dry.new(sequence.sampling),
            mu=sequence.mirostat_mu,
            constraint=sequence.constraint,
        )
        self._scheduler.enqueue(make_running(sequence, adapter, self._info.context_length, sampler))

    def abort(self, sequence_id: int) -> None:
        """See ``base.Engine``; the next step can use the slot and its KV cells."""
        run = self._scheduler.find(sequence_id)
        if run is not None:
            self._remove(run, True)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``; all prompts of the aborted decode pass are prefilled again."""
        if self._loaded.tuning.abort is not None:
            self._loaded.tuning.abort.stop(sequence_id)

    def step(self) -> list[StepEvent]:
        """See ``base.Engine``."""
        self._scheduler.admit()
        parts = self._scheduler.plan(self._budget.num_tokens, can_stop=self._decoder.can_stop)
        self._add_drafts(parts)
        parts = self._scheduler.fit(parts)
        if not parts:
            return []
        self._set_num_threads()
        events = self._decode_timed(parts)
        self._scheduler.end_pauses()
        if self._loaded.threads is not None:
            self._loaded.threads.note_step(time.monotonic())
        return events

    def _decode_timed(self, parts: list[Part]) -> list[StepEvent]:
        """Decode ``parts``; the time of their prompts adjusts the step budget."""
        started = time.perf_counter()
        events = self._decoder.decode(parts)
        elapsed_s = time.perf_counter() - started
        if not self._decoder.was_stopped:
            prompts = [part.num_tokens + part.num_padding for part in parts if part.num_tokens > 1]
            is_cold = started - self._worked_until > self._rest_s
            num_decoding = len(parts) - len(prompts)
            self._budget.record(sum(prompts), elapsed_s, num_decoding, is_cold=is_cold)
        self._worked_until = started + elapsed_s
        return events

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """See ``base.Engine``; uses a second context, opened at the first call."""
        return self._loaded.embedder.embed(inputs, pooling, on_piece)

    def close(self) -> None:
        """See ``base.Engine``; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._scheduler.clear()
        if self._host_cache is not None:
            self._prefixes.evict_all()
            self._host_cache.close()
        self._dry.close()
        self._loaded.close()

    @property
    def cache_bytes(self) -> int:
        """See ``base.Engine``; always 0: llama.cpp allocates its buffers once, at load."""
        return 0

    @property
    def prompt_cache_bytes(self) -> int:
        """See ``base.Engine``: states that were copied out of the KV cells."""
        return 0 if self._host_cache is None else self._host_cache.num_bytes

    device_bytes = 0  # llama.cpp tells only what is free on the GPU, for all processes

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``."""
        message = "cache_limit: llama.cpp keeps no freed memory"
        raise UnsupportedParameterError(message, "cache_limit")

    def _set_num_threads(self) -> None:
        if self._loaded.threads is None:
            return
        num_threads = self._loaded.threads.choose(time.monotonic())
        lib.llama_set_n_threads(self._memory.context, num_threads, num_threads)

    def _add_drafts(self, parts: list[Part]) -> None:
        if self._drafter is None:
            return
        decoding = {p.run.sequence.sequence_id: p for p in parts if p.run.num_uncomputed == 1}
        drafts = self._drafter.propose([part.run for part in decoding.values()])
        for sequence_id, draft in drafts.items():
            decoding[sequence_id].drafts = draft

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
