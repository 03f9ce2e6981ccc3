"""The MLX engine: admission, prefill and decode of one loaded model."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import mlx.core as mx

from jobs.catalog.mlx_folder import check_folder
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
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.batch.running_batch import RunningBatch
from workers.engines.mlx.embedding import Embedder
from workers.engines.mlx.load import adapters
from workers.engines.mlx.load.draft_model import check_draft_folder, open_drafter
from workers.engines.mlx.load.engine_parts import EngineParts, build_engine_parts
from workers.engines.mlx.load.loading import LoadedModel, as_load_error, load
from workers.engines.mlx.load.options import check_options, describe
from workers.engines.mlx.load.tokenizer import load_tokenizer

_SHARE_OF_PROGRESS = 0.8  # the model's share of the progress, if a draft model is loaded too


def open_mlx(path: Path, options: EngineOptions, on_progress: OnProgress) -> MlxEngine:
    """Load the model folder ``path``.

    All MLX work must be done by one thread: the caller's thread must also call ``step``. Raises
    ``ModelLoadError`` for a broken folder, ``InvalidRequestError`` for an option that does not fit
    the model, ``UnsupportedParameterError`` for an option that MLX does not support.
    """
    check_options(options)
    with as_load_error(path):
        config = check_folder(path, is_remote_code_trusted=options.is_remote_code_trusted)
        find_weights(path)  # what is missing is said before anything is read
        tokenizer = load_tokenizer(path, config)
    check_draft_folder(options, tokenizer)
    share = 1.0 if options.draft_path is None else _SHARE_OF_PROGRESS
    loaded = load(path, config, options, lambda done: on_progress(share * done))
    drafter = open_drafter(options, loaded, lambda done: on_progress(share + (1.0 - share) * done))
    # Some models name end tokens outside their logits.
    end_ids = frozenset(i for i in tokenizer.end_ids if i < loaded.vocab_size)
    parts = build_engine_parts(path, loaded, end_ids, options, drafter)
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
        self._info = describe(loaded, options)
        self._embedder: Embedder | None = parts.embedder
        self._step_scope = loaded.step_scope
        self._waiting: deque[Sequence] = deque()
        self._prefill, self._batch = parts.prefill, parts.batch
        self._store, self._spill = parts.store, parts.spill

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or self._num_running > 0

    @property
    def _num_running(self) -> int:
        return len(self._prefill) + len(self._batch)

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
        self._prefill.remove(sequence_id)
        self._batch.remove(sequence_id)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``. Does nothing: a step is short."""

    def step(self) -> list[StepEvent]:
        """See ``base.Engine``: admit, prefill one chunk, advance the batch."""
        failed = self._admit()
        with device.watched(), self._step_scope():
            was_idle = len(self._batch) == 0
            # Before the prefill, so that a row which has just joined waits for one chunk at most.
            self._batch.start()
            events = [*failed, *self._prefill.step(self._batch.join)]
            if was_idle and any(isinstance(event, Token) for event in events):
                return events  # report the first token without waiting for a decode step
            return [*events, *self._batch.step()]

    def _admit(self) -> list[StepEvent]:
        """Start waiting sequences while slots are free; returns the failures of those it cannot."""
        failed: list[StepEvent] = []
        while self._waiting and self._num_running < self._info.num_slots:
            sequence = self._waiting.popleft()
            try:
                self._prefill.add(self._row(sequence))
            except Exception as error:  # only this one ends
                failed.append(failure_of(sequence.sequence_id, error))
        return failed

    def _row(self, sequence: Sequence) -> Row:
        room = self._info.context_length - len(sequence.prompt)
        repetitions = self._breakers.repetitions(sequence.sampling)
        return Row(sequence, min(sequence.max_tokens, room), repetitions)

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """See ``base.Engine``."""
        if self._embedder is None:
            raise EngineError("The engine is closed")
        with device.watched(), self._step_scope():
            return self._embedder.embed(inputs, pooling)

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
        """See ``base.Engine``."""
        mx.set_cache_limit(num_bytes)

    def close(self) -> None:
        """See ``base.Engine``; kept prompts are spilled first, if there is a folder for them."""
        self._waiting.clear()
        if self._spill is not None:
            self._spill.close(reversed(self._store.entries))
            self._spill = None
        self._store.clear()
        self._embedder = None
        self._batch = RunningBatch(_closed_model, frozenset(), self._store)
        self._prefill = PrefillQueue(_closed_model, self._store, self._batch.find)
        mx.clear_cache()


def _closed_model(*_: object, **__: object) -> mx.array:
    raise EngineError("The engine is closed")
