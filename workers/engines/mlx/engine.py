"""The engine of MLX models: admission, prefill and decode of one loaded model."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import mlx.core as mx

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
from workers.engines.mlx.batch.prefill import PrefillQueue
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.batch.running_batch import RunningBatch
from workers.engines.mlx.embedding import embed
from workers.engines.mlx.load import adapters
from workers.engines.mlx.load.draft_model import check_draft_folder, open_drafter
from workers.engines.mlx.load.engine_parts import EngineParts, build_engine_parts
from workers.engines.mlx.load.folder import check_folder
from workers.engines.mlx.load.loading import LoadedModel, explained, load
from workers.engines.mlx.load.options import check_options, describe
from workers.engines.mlx.load.tokenizer import load_tokenizer

_SHARE_OF_PROGRESS = 0.8  # of the model, when a draft model is loaded after it


def open_mlx(path: Path, options: EngineOptions, on_progress: OnProgress) -> MlxEngine:
    """Load the model folder ``path``.

    All MLX work of the engine happens on the calling thread; it must go on to call ``step``.
    Raises ``ModelLoadError`` with what is wrong with the folder, ``InvalidRequestError`` for an
    option that does not fit the model, ``UnsupportedParameterError`` for one that MLX lacks.
    """
    check_options(options)
    with explained(path):
        config = check_folder(path, is_remote_code_trusted=options.is_remote_code_trusted)
        tokenizer = load_tokenizer(path, config)
    check_draft_folder(options, tokenizer)
    share = 1.0 if options.draft_path is None else _SHARE_OF_PROGRESS
    loaded = load(path, config, options, lambda done: on_progress(share * done))
    drafter = open_drafter(options, loaded, lambda done: on_progress(share + (1.0 - share) * done))
    # Some models name end tokens that they cannot make.
    end_ids = frozenset(i for i in tokenizer.end_ids if i < loaded.vocab_size)
    parts = build_engine_parts(path, loaded, end_ids, options, drafter)
    return MlxEngine(loaded, tokenizer, options, parts)


class MlxEngine:
    """One loaded MLX model and its running batch (the ``Engine`` of ``workers/engines/base``)."""

    def __init__(
        self,
        loaded: LoadedModel,
        tokenizer: Tokenizer,
        options: EngineOptions,
        parts: EngineParts,
    ) -> None:
        self._tokenizer = tokenizer
        self._adapter = options.adapter
        self._info = describe(loaded, options)
        self._module: object = loaded.module
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
        """Raise for a sampling setting that this model cannot honour."""
        for token_id in sampling.logit_bias:
            if not 0 <= token_id < self._info.vocab_size:
                raise InvalidRequestError(
                    f"Token {token_id} is not in the vocabulary", "logit_bias"
                )

    def submit(self, sequence: Sequence) -> None:
        """Take a sequence; it starts when a slot is free, in order."""
        self.check(sequence.sampling)
        self._check_prompt(sequence)
        if sequence.adapter not in (None, self._adapter):
            message = "an MLX model has the adapter that it was loaded with, and no other"
            raise UnsupportedParameterError(message, adapters.FIELD)
        self._waiting.append(sequence)

    def _check_prompt(self, sequence: Sequence) -> None:
        num, context_length = len(sequence.prompt), self._info.context_length
        if num == 0:
            raise InvalidRequestError("The prompt is empty", "prompt")
        if num >= context_length:
            message = f"The prompt has {num} tokens, the context {context_length}"
            raise ContextLengthExceededError(message, "prompt")
        # MLX reads beyond the embedding table without an error.
        if min(sequence.prompt) < 0 or max(sequence.prompt) >= self._info.vocab_size:
            raise InvalidRequestError("The prompt holds a token outside the vocabulary", "prompt")

    def abort(self, sequence_id: int) -> None:
        """Forget a sequence, waiting or running, at once; unknown ids are ignored."""
        self._waiting = deque(s for s in self._waiting if s.sequence_id != sequence_id)
        self._prefill.remove(sequence_id)
        self._batch.remove(sequence_id)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``; a step is short anyway."""

    def step(self) -> list[StepEvent]:
        """Admit, process a chunk of prompts, advance the batch by one token."""
        self._admit()
        with self._step_scope():
            was_idle = len(self._batch) == 0
            self._batch.start()  # who has joined with a token in hand waits for one prompt at most
            events = self._prefill.step(self._batch.join)
            if was_idle and any(isinstance(event, Token) for event in events):
                return events  # a first token that need not wait for a step
            return [*events, *self._batch.step()]

    def _admit(self) -> None:
        while self._waiting and self._num_running < self._info.num_slots:
            sequence = self._waiting.popleft()
            room = self._info.context_length - len(sequence.prompt)
            self._prefill.add(Row(sequence, min(sequence.max_tokens, room)))

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """See ``base.Engine``; without a choice the mean."""
        chosen = pooling or Pooling.MEAN
        return embed(self._module, inputs, chosen, self._info.context_length)

    @property
    def cache_bytes(self) -> int:
        """See ``base.Engine``: MLX's cache of buffers."""
        return int(mx.get_cache_memory())

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``."""
        mx.set_cache_limit(num_bytes)

    def close(self) -> None:
        """Drop all sequences and the model; kept prompts are spilled, if they are to be."""
        self._waiting.clear()
        if self._spill is not None:
            self._spill.close(reversed(self._store.entries))
            self._spill = None
        self._store.clear()
        self._module = None
        self._batch = RunningBatch(_closed_model, frozenset(), self._store)
        self._prefill = PrefillQueue(_closed_model, self._store, self._batch.find)
        mx.clear_cache()


def _closed_model(*_: object, **__: object) -> mx.array:
    raise EngineError("The engine is closed")
