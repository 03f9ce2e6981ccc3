"""The MLX engine: admission, prefill and decode of one loaded model."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from jobs.catalog.mlx_folder import Json, check_folder
from jobs.catalog.mlx_weights import find_weights
from jobs.contract.errors import (
    ContextLengthExceededError,
    EngineError,
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
    Token,
    Tokenizer,
)
from workers.engines.dry import BreakerFinder
from workers.engines.failures import failure_of
from workers.engines.mlx import device
from workers.engines.mlx.batch.prefill import PrefillQueue
from workers.engines.mlx.batch.residents import Residents
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.batch.running_batch import RunningBatch
from workers.engines.mlx.embedding import Embedder
from workers.engines.mlx.load import adapters
from workers.engines.mlx.load.draft_model import check_draft_folder, open_drafter
from workers.engines.mlx.load.engine_parts import EngineParts, build_engine_parts, open_room
from workers.engines.mlx.load.loading import LoadedModel, as_load_error, load
from workers.engines.mlx.load.options import check_options, describe, fit_context, num_slots_of
from workers.engines.mlx.load.tokenizer import MlxTokenizer, load_tokenizer
from workers.engines.mlx.memory import Memory

_SHARE_OF_PROGRESS = 0.8  # the model's share of the progress, if a draft model is loaded too


def open_mlx(path: Path, options: EngineOptions, on_progress: OnProgress) -> MlxEngine:
    """Load the model folder ``path``.

    All MLX work must be done by one thread: the caller's thread must also call ``step``. Raises
    ``ModelLoadError`` for a broken folder, ``InvalidRequestError`` for an option that does not fit
    the model, ``UnsupportedParameterError`` for an option that MLX does not support, and
    ``InsufficientMemoryError`` if weights or a context do not fit into the memory.
    """
    check_options(options)
    with as_load_error(path):
        config = check_folder(path, is_remote_code_trusted=options.is_remote_code_trusted)
        find_weights(path)  # what is missing is said before anything is read
        tokenizer = load_tokenizer(path, config)
    check_draft_folder(options, tokenizer)
    memory = Memory(options.memory_bytes)
    try:
        return _open(path, config, tokenizer, options, on_progress, memory)
    except BaseException:
        memory.close()
        raise


def _open(
    path: Path,
    config: Json,
    tokenizer: MlxTokenizer,
    options: EngineOptions,
    on_progress: OnProgress,
    memory: Memory,
) -> MlxEngine:
    share = 1.0 if options.draft_path is None else _SHARE_OF_PROGRESS
    loaded = load(path, config, options, lambda done: on_progress(share * done), memory)
    drafter = open_drafter(
        options, loaded, lambda done: on_progress(share + (1.0 - share) * done), memory
    )
    room = open_room(loaded, options, memory, drafter)
    if room is not None:
        loaded = fit_context(loaded, options, room)
    # Some models name end tokens outside their logits.
    end_ids = frozenset(i for i in tokenizer.end_ids if i < loaded.vocab_size)
    parts = build_engine_parts(path, loaded, end_ids, options, drafter, memory, room)
    return MlxEngine(loaded, tokenizer, options, parts)


class MlxEngine:
    """Implements ``workers.engines.base.Engine``; made by ``open_mlx``."""

    def __init__(
        self,
        loaded: LoadedModel,
        tokenizer: Tokenizer,
        options: EngineOptions,
        parts: EngineParts,
    ) -> None:
        self._tokenizer = tokenizer
        self._breakers = BreakerFinder(tokenizer)
        self._adapter = options.adapter
        self._info = describe(loaded, options, num_slots_of(loaded, options, parts.room))
        self._embedder: Embedder | None = parts.embedder
        self._step_scope = loaded.step_scope
        self._waiting: deque[Sequence] = deque()
        self._preempted: deque[Row] = deque()  # before those that wait
        self._numbers = itertools.count()
        self._prefill, self._batch = parts.prefill, parts.batch
        self._store, self._spill = parts.store, parts.spill
        self._memory = parts.memory
        self._residents = Residents(parts.room, parts.store, parts.prefill, parts.batch)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._preempted) or len(self._residents) > 0

    def check(self, sampling: Sampling) -> None:
        """Raise ``InvalidRequestError`` for a logit bias of an unknown token."""
        for token_id in sampling.logit_bias:
            if not 0 <= token_id < self._info.vocab_size:
                raise InvalidRequestError(
                    f"Token {token_id} is not in the vocabulary", "logit_bias"
                )
        self._breakers.of(sampling)  # searches the vocabulary now, so that no step has to wait

    def submit(self, sequence: Sequence) -> None:
        """See ``base.Engine``. Raises ``InvalidRequestError`` for a prompt that cannot run,
        ``UnsupportedParameterError`` for an adapter other than the one given at load."""
        self.check(sequence.sampling)
        self._check_prompt(sequence)
        if sequence.adapter not in (None, self._adapter):
            message = "an MLX model can only use the adapter that was given when it was loaded"
            raise UnsupportedParameterError(message, adapters.FIELD)
        self._waiting.append(sequence)

    def _check_prompt(self, sequence: Sequence) -> None:
        num, context_length = len(sequence.prompt), self._info.context_length
        if num == 0:
            raise InvalidRequestError("The prompt is empty", "prompt")
        if num >= context_length:
            message = f"The prompt has {num} tokens, the context holds {context_length}"
            raise ContextLengthExceededError(message, "prompt")
        # For a token id outside the embedding table MLX raises no error.
        if min(sequence.prompt) < 0 or max(sequence.prompt) >= self._info.vocab_size:
            raise InvalidRequestError("The prompt has a token outside the vocabulary", "prompt")

    def abort(self, sequence_id: int) -> None:
        """See ``base.Engine``."""
        self._waiting = deque(s for s in self._waiting if s.sequence_id != sequence_id)
        self._preempted = deque(
            row for row in self._preempted if row.sequence.sequence_id != sequence_id
        )
        self._prefill.remove(sequence_id)
        self._batch.remove(sequence_id)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``. Does nothing: a step is short."""

    def step(self) -> list[StepEvent]:
        """See ``base.Engine``: admit, prefill one chunk, advance the batch."""
        with device.watched(), self._step_scope():
            admitted = self._admit()
            was_idle = len(self._batch) == 0
            # Before the prefill, so that a row which has just joined waits for one chunk at most.
            self._batch.start()
            is_alone = was_idle and len(self._prefill) == 1
            events = [*admitted, *self._prefill.step(self._batch.join, is_alone=is_alone)]
            if was_idle and any(isinstance(event, Token) for event in events):
                return events  # report the first token without waiting for a decode step
            return [*events, *self._batch.step()]

    def _admit(self) -> list[StepEvent]:
        """Start waiting sequences while slots and memory are free.

        Returns the failures of those that cannot start, and tokens that were scheduled.
        """
        events, rows = self._residents.preempt()
        self._preempted.extendleft(reversed(rows))
        while len(self._residents) < self._info.num_slots and (self._preempted or self._waiting):
            queue: deque[Row] | deque[Sequence] = self._preempted or self._waiting
            first = queue[0]
            length = len(first.tokens if isinstance(first, Row) else first.prompt)
            if not self._residents.fits(length):
                break
            queue.popleft()
            try:
                self._prefill.add(first if isinstance(first, Row) else self._row(first))
            except Exception as error:  # only this one ends
                sequence = first.sequence if isinstance(first, Row) else first
                events.append(failure_of(sequence.sequence_id, error))
        self._store.make_room()
        return events

    def _row(self, sequence: Sequence) -> Row:
        room = self._info.context_length - len(sequence.prompt)
        repetitions = self._breakers.repetitions(sequence.sampling)
        max_tokens = min(sequence.max_tokens, room)
        return Row(sequence, max_tokens, repetitions, next(self._numbers))

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """See ``base.Engine``."""
        if self._embedder is None:
            raise EngineError("The engine is closed")
        self._embedder.check(inputs)
        self._residents.make_room_to_embed(max(map(len, inputs), default=0))
        with device.watched(), self._step_scope():
            return self._embedder.embed(inputs, pooling, on_piece)

    @property
    def cache_bytes(self) -> int:
        """See ``base.Engine``: MLX's buffer cache."""
        return int(mx.get_cache_memory())

    @property
    def prompt_cache_bytes(self) -> int:
        """See ``base.Engine``."""
        return self._store.num_bytes

    @property
    def device_bytes(self) -> int:
        """See ``base.Engine``: arrays, and MLX's buffer cache."""
        return int(mx.get_active_memory() + mx.get_cache_memory()) if device.is_gpu() else 0

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``; never more than the pool of a share."""
        limit = self._memory.limit_bytes
        mx.set_cache_limit(num_bytes if limit is None else min(num_bytes, self._memory.pool_bytes))

    def close(self) -> None:
        """See ``base.Engine``; kept prompts are spilled first, if there is a folder for them."""
        self._waiting.clear()
        self._preempted.clear()
        if self._spill is not None:
            self._spill.close(reversed(self._store.entries))
            self._spill = None
        self._store.limit_by(None)
        self._store.clear()
        self._embedder = None
        memory = self._memory
        self._batch = RunningBatch(_closed_model, frozenset(), self._store, memory)
        self._prefill = PrefillQueue(_closed_model, self._store, self._batch.find, memory=memory)
        self._residents = Residents(None, self._store, self._prefill, self._batch)
        memory.close()


def _closed_model(*_: object, **__: object) -> mx.array:
    raise EngineError("The engine is closed")
