"""Continuous batching on llama.cpp: one ``llama_decode`` per step for all running sequences."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.sampling import Sampling
from workers.engines.base import (
    EngineOptions,
    FinishReason,
    ModelInfo,
    OnProgress,
    Pooling,
    Prefill,
    Sequence,
    SequenceFailure,
    StepEvent,
    Token,
)
from workers.engines.llama_cpp.batch import Batch, IntArray
from workers.engines.llama_cpp.binding import lib, native_log
from workers.engines.llama_cpp.native import Native, load_native
from workers.engines.llama_cpp.room import ChunkSize, Room
from workers.engines.llama_cpp.sampler import Sampler, check_sampling, token_logprobs
from workers.engines.llama_cpp.tokenizer import LlamaCppTokenizer

_TO_THE_END = -1


def open_llama_cpp(path: Path, options: EngineOptions, on_progress: OnProgress) -> LlamaCppEngine:
    """Load the GGUF file at ``path``. Raises ``ModelLoadError`` with the reason.

    Of a split model (``…-00001-of-00003.gguf``), ``path`` is the first part. An exception from
    ``on_progress`` stops the load and comes out of this function.
    """
    return LlamaCppEngine(load_native(path, options, on_progress))


@dataclass(slots=True)
class _Running:
    """A sequence and how far it has come. ``slot`` and ``sampler`` are its own until it retires."""

    sequence: Sequence
    prompt: IntArray
    limit: int  # tokens to generate at most: max_tokens, or fewer where the context ends
    slot: int
    sampler: Sampler
    num_prefilled: int = 0
    num_generated: int = 0
    last_token: int = 0
    row: int = 0  # of the batch last decoded, where its logits are

    @property
    def num_left(self) -> int:
        """Prompt tokens that are not in the KV cache yet."""
        return len(self.prompt) - self.num_prefilled

    @property
    def num_in_cache(self) -> int:
        # The last generated token enters the cache with the step that follows it.
        return self.num_prefilled + max(self.num_generated - 1, 0)


_Part = tuple[_Running, int]
"""A running sequence and its number of prompt tokens in this batch; 0: it decodes."""


class LlamaCppEngine:
    """Implements ``workers.engines.base.Engine``; made by ``open_llama_cpp``."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._context = native.context
        self._memory = lib.llama_get_memory(native.context)
        self._info = native.info
        self._end_ids = native.tokenizer.end_ids
        self._batch = Batch(lib.llama_n_batch(native.context))
        self._chunk_size = ChunkSize(self._batch.capacity - native.info.num_slots)
        self._room = Room(native.info.num_slots, native.num_cells)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, _Running] = {}
        self._is_closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> LlamaCppTokenizer:
        return self._native.tokenizer

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def check(self, sampling: Sampling) -> None:
        """Raise ``UnsupportedParameterError`` for mirostat, ``InvalidRequestError`` for biases."""
        check_sampling(sampling, self._info.vocab_size)

    def submit(self, sequence: Sequence) -> None:
        """See ``base.Engine``. Raises ``InvalidRequestError`` for a prompt that cannot run."""
        _check_prompt(sequence.prompt, self._info)
        _check_extras(sequence)
        self._waiting.append(sequence)

    def abort(self, sequence_id: int) -> None:
        """See ``base.Engine``; the slot and its KV cells are free for the next step."""
        run = self._running.get(sequence_id)
        if run is not None:
            self._retire(run)
            return
        kept = (one for one in self._waiting if one.sequence_id != sequence_id)
        self._waiting = deque(kept)

    def step(self) -> list[StepEvent]:
        """See ``base.Engine``."""
        self._admit()
        parts = self._plan()
        if not parts:
            return []
        started = time.perf_counter()
        events = self._decode(parts)
        num_prompt_tokens = sum(num_tokens for _, num_tokens in parts)
        self._chunk_size.observe(num_prompt_tokens, time.perf_counter() - started)
        return events

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """Not there yet: raises ``UnsupportedParameterError``."""
        raise UnsupportedParameterError("embeddings are not supported for GGUF models", "model")

    def close(self) -> None:
        """See ``base.Engine``; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._waiting.clear()
        for run in list(self._running.values()):
            self._retire(run)
        self._native.close()

    def _admit(self) -> None:
        """Start waiting sequences in order; one that has to wait holds those behind it."""
        while self._waiting:
            sequence = self._waiting[0]
            limit = self._limit(sequence)
            slot = self._room.take(len(sequence.prompt) + limit)
            if slot is None:
                return
            self._waiting.popleft()
            self._running[sequence.sequence_id] = self._start(sequence, limit, slot)

    def _limit(self, sequence: Sequence) -> int:
        return min(sequence.max_tokens, self._info.context_length - len(sequence.prompt))

    def _start(self, sequence: Sequence, limit: int, slot: int) -> _Running:
        sampler = Sampler(
            sequence.sampling,
            sequence.prompt,
            vocab_size=self._info.vocab_size,
            end_ids=self._end_ids,
            context_length=self._info.context_length,
        )
        prompt = np.asarray(sequence.prompt, np.int32)
        return _Running(sequence, prompt, limit, slot, sampler)

    def _plan(self) -> list[_Part]:
        """Every decoding sequence, then as much of the prompts as the step's budget allows."""
        budget = self._chunk_size.num_tokens
        decoding: list[_Part] = []
        prefilling: list[_Part] = []
        for run in self._running.values():
            num_left = run.num_left
            if num_left == 0:
                decoding.append((run, 0))
            elif budget > 0:
                num_tokens = min(num_left, budget)
                budget -= num_tokens
                prefilling.append((run, num_tokens))
        return decoding + prefilling

    def _decode(self, parts: list[_Part]) -> list[StepEvent]:
        self._write(parts)
        native_log.clear()
        if lib.llama_decode(self._context, self._batch.native) == 0:
            lib.llama_synchronize(self._context)
            return self._harvest(parts)
        if len(parts) == 1:
            return [self._give_up(parts[0][0])]
        return [event for part in parts for event in self._retry(part)]

    def _retry(self, part: _Part) -> list[StepEvent]:
        """Decode alone one part of a batch that failed, so that only the guilty one is given up."""
        run, _ = part
        # A fatal error leaves what it had processed in the cache: take that back first.
        is_clean = lib.llama_memory_seq_rm(self._memory, run.slot, run.num_in_cache, _TO_THE_END)
        return self._decode([part]) if is_clean else [self._give_up(run)]

    def _write(self, parts: list[_Part]) -> None:
        batch = self._batch
        batch.clear()
        for run, num_tokens in parts:
            position = run.num_in_cache
            if num_tokens == 0:
                run.row = batch.add_token(run.last_token, position, run.slot)
            else:
                chunk = run.prompt[position : position + num_tokens]
                is_last = num_tokens == run.num_left
                run.row = batch.add_chunk(chunk, position, run.slot, is_last=is_last)

    def _harvest(self, parts: list[_Part]) -> list[StepEvent]:
        events: list[StepEvent] = []
        for run, num_tokens in parts:
            if num_tokens:
                run.num_prefilled += num_tokens
                sequence_id = run.sequence.sequence_id
                events.append(Prefill(sequence_id, run.num_prefilled, len(run.prompt)))
            if run.num_left == 0:
                events.append(self._next_token(run))
        return events

    def _next_token(self, run: _Running) -> Token:
        position = len(run.prompt) + run.num_generated
        token = run.sampler.sample(self._context, run.row, position)
        run.last_token = token
        run.num_generated += 1
        is_end = token in self._end_ids
        finish = _finish(run, is_end)
        logprob, top_logprobs = self._logprobs(run, token)
        if finish is not None:
            self._retire(run)
        return Token(run.sequence.sequence_id, token, finish, is_end, logprob, top_logprobs)

    def _logprobs(
        self, run: _Running, token: int
    ) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        num_top = run.sequence.sampling.num_logprobs
        if num_top is None:
            return None, ()
        return token_logprobs(self._context, run.row, self._info.vocab_size, token, num_top)

    def _give_up(self, run: _Running) -> SequenceFailure:
        self._retire(run)
        reason = native_log.complaints() or "llama.cpp gave no reason"
        return SequenceFailure(run.sequence.sequence_id, f"decoding failed: {reason}")

    def _retire(self, run: _Running) -> None:
        """Free the slot, its KV cells and its sampler."""
        lib.llama_memory_seq_rm(self._memory, run.slot, 0, _TO_THE_END)
        run.sampler.close()
        self._room.give_back(run.slot, len(run.prompt) + run.limit)
        del self._running[run.sequence.sequence_id]


def _check_prompt(prompt: ListLike[int], info: ModelInfo) -> None:
    if not prompt:
        raise InvalidRequestError("the prompt is empty", "prompt")
    if len(prompt) >= info.context_length:
        message = f"the prompt has {len(prompt)} tokens, the context holds {info.context_length}"
        raise ContextLengthExceededError(message, "prompt")
    if min(prompt) < 0 or max(prompt) >= info.vocab_size:
        message = f"the prompt has token ids outside the vocabulary (0 to {info.vocab_size - 1})"
        raise InvalidRequestError(message, "prompt")


def _check_extras(sequence: Sequence) -> None:
    """Refuse by name what would otherwise be dropped in silence."""
    if sequence.num_prompt_logprobs is not None:
        message = "log-probabilities of the prompt are not supported for GGUF models"
        raise UnsupportedParameterError(message, "echo")
    if sequence.adapter is not None:
        message = "LoRA adapters are not supported for GGUF models"
        raise UnsupportedParameterError(message, "adapter_name")


def _finish(run: _Running, is_end: bool) -> FinishReason | None:
    if is_end:
        return FinishReason.STOP
    return FinishReason.LENGTH if run.num_generated == run.limit else None
