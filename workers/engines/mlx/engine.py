"""The engine of MLX models: admission, prefill and decode of one loaded model."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import mlx.core as mx
import psutil

from jobs.errors import (
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.sampling import Sampling
from workers.engines.base import (
    EngineOptions,
    ModelInfo,
    OnProgress,
    Pooling,
    Sequence,
    StepEvent,
    Tokenizer,
)
from workers.engines.mlx import adapters, kv, library
from workers.engines.mlx.batch import RunningBatch
from workers.engines.mlx.embedding import embed
from workers.engines.mlx.folder import check_folder
from workers.engines.mlx.loading import LoadedModel, explained, load
from workers.engines.mlx.prefill import PrefillQueue
from workers.engines.mlx.prompt_cache import PromptStore
from workers.engines.mlx.quantized_kv import check_kv_bits
from workers.engines.mlx.row import Row
from workers.engines.mlx.tokenizer import load_tokenizer

_DEFAULT_SLOTS = 8
_MAX_DEFAULT_CACHE_BYTES = 2 << 30


def open_mlx(path: Path, options: EngineOptions, on_progress: OnProgress) -> MlxEngine:
    """Load the model folder ``path``.

    All MLX work of the engine happens on the calling thread; it must go on to call ``step``.
    Raises ``ModelLoadError`` with what is wrong with the folder, ``InvalidRequestError`` for an
    option that does not fit the model, ``UnsupportedParameterError`` for one that MLX lacks.
    """
    _check_options(options)
    with explained(path):
        config = check_folder(path, is_remote_code_trusted=options.is_remote_code_trusted)
        tokenizer = load_tokenizer(path, config)
    return MlxEngine(load(path, config, options, on_progress), tokenizer, options)


def _check_options(options: EngineOptions) -> None:
    refused = {
        "threads": options.num_threads,
        "gpu_layers": options.num_gpu_layers,
        "prompt_cache_dir": options.prompt_cache_dir,
        "draft_model": options.draft_path,
        "num_draft_tokens": options.num_draft_tokens,
    }
    for name, value in refused.items():
        if value is not None:
            raise UnsupportedParameterError(f"{name} is not supported for MLX models", name)
    if options.kv_bits is not None:
        check_kv_bits(options.kv_bits, options.num_slots)


class MlxEngine:
    """One loaded MLX model and its running batch (the ``Engine`` of ``workers/engines/base``)."""

    def __init__(self, loaded: LoadedModel, tokenizer: Tokenizer, options: EngineOptions) -> None:
        self._tokenizer = tokenizer
        self._adapter = options.adapter
        self._info = _describe(loaded, options)
        self._module: object = loaded.module
        self._waiting: deque[Sequence] = deque()
        max_bytes = _cache_budget(loaded, options)
        self._store = PromptStore(max_bytes)
        # Some models name end tokens that they cannot make.
        end_ids = frozenset(i for i in tokenizer.end_ids if i < loaded.vocab_size)
        self._batch = RunningBatch(loaded.model, end_ids, self._store)
        self._prefill = PrefillQueue(
            loaded.model, self._store, self._batch.find, is_reusing=max_bytes > 0
        )

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

    def step(self) -> list[StepEvent]:
        """Admit, process a chunk of prompts, advance the batch by one token."""
        self._admit()
        prompts = self._prefill.step(self._batch.join)
        return [*prompts, *self._batch.step()]

    def _admit(self) -> None:
        while self._waiting and self._num_running < self._info.num_slots:
            sequence = self._waiting.popleft()
            room = self._info.context_length - len(sequence.prompt)
            self._prefill.add(Row(sequence, min(sequence.max_tokens, room)))

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """See ``base.Engine``; without a choice the mean."""
        chosen = pooling or Pooling.MEAN
        return embed(self._module, inputs, chosen, self._info.context_length)

    def close(self) -> None:
        """Drop all sequences and the model."""
        self._waiting.clear()
        self._store.clear()
        self._module = None
        self._batch = RunningBatch(_closed_model, self._tokenizer.end_ids, self._store)
        self._prefill = PrefillQueue(_closed_model, self._store, self._batch.find)
        mx.clear_cache()


def _closed_model(*_: object, **__: object) -> mx.array:
    raise EngineError("The engine is closed")


def _cache_budget(loaded: LoadedModel, options: EngineOptions) -> int:
    """Bytes for kept KV state; 0 for a model whose state cannot be copied."""
    if not kv.can_keep(library.new_cache(loaded.model)):
        return 0
    if options.prompt_cache_bytes is not None:
        return options.prompt_cache_bytes
    return min(_MAX_DEFAULT_CACHE_BYTES, psutil.virtual_memory().total // 10)


def _describe(loaded: LoadedModel, options: EngineOptions) -> ModelInfo:
    can_batch = library.can_batch(library.new_cache(loaded.model))
    return ModelInfo(
        backend="mlx",
        context_length=loaded.context_length,
        num_slots=(options.num_slots or _DEFAULT_SLOTS) if can_batch else 1,
        vocab_size=loaded.vocab_size,
        architecture=str(loaded.config["model_type"]),
        quantization=loaded.quantization,
        num_parameters=loaded.num_parameters,
    )
