"""GGUF models without a next token, such as BERT's family: they embed, and refuse to generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.sampling import Sampling
from workers.engines.base import (
    Engine,
    EngineOptions,
    ModelInfo,
    OnProgress,
    Pooling,
    Sequence,
    StepEvent,
)
from workers.engines.llama_cpp.engine import LlamaCppEngine
from workers.engines.llama_cpp.load.loaded_model import LoadedEncoder, load_gguf
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer


def open_gguf(path: Path, options: EngineOptions, on_progress: OnProgress) -> Engine:
    """Load any GGUF model, see ``open_llama_cpp``."""
    loaded = load_gguf(path, options, on_progress)
    return EncoderEngine(loaded) if isinstance(loaded, LoadedEncoder) else LlamaCppEngine(loaded)


class EncoderEngine:
    """Implements ``workers.engines.base.Engine``; made by ``open_gguf``."""

    has_work = False
    cache_bytes = 0
    prompt_cache_bytes = 0
    device_bytes = 0

    def __init__(self, loaded: LoadedEncoder) -> None:
        self._loaded = loaded
        self._is_closed = False

    @property
    def info(self) -> ModelInfo:
        return self._loaded.info

    @property
    def tokenizer(self) -> LlamaCppTokenizer:
        return self._loaded.tokenizer

    def check(self, sampling: Sampling) -> None:
        """Raise ``InvalidRequestError``: there is nothing to sample."""
        self._refuse()

    def submit(self, sequence: Sequence) -> None:
        """Raise ``InvalidRequestError``."""
        self._refuse()

    def abort(self, sequence_id: int) -> None:
        pass

    def interrupt(self, sequence_id: int) -> None:
        pass

    def step(self) -> list[StepEvent]:
        return []

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """See ``base.Engine``."""
        return self._loaded.embedder.embed(inputs, pooling, on_piece)

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``."""
        message = "cache_limit: llama.cpp keeps no freed memory"
        raise UnsupportedParameterError(message, "cache_limit")

    def close(self) -> None:
        """See ``base.Engine``; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._loaded.close()

    def _refuse(self) -> NoReturn:
        kind = self._loaded.info.architecture
        message = f"this model is an encoder ({kind}): it embeds texts and does not generate any"
        raise InvalidRequestError(message, "model")
