"""The GGUF engine: llama.cpp through the low-level binding of llama-cpp-python.

Importing this package costs nothing; ``llama_cpp`` is imported when a model is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workers.engines.base import EngineOptions, OnProgress

if TYPE_CHECKING:
    from workers.engines.llama_cpp.engine import LlamaCppEngine


def open_llama_cpp(path: Path, options: EngineOptions, on_progress: OnProgress) -> LlamaCppEngine:
    """Load the GGUF file at ``path``. Raises ``jobs.errors.ModelLoadError`` with the reason.

    Of a split model (``…-00001-of-00003.gguf``), ``path`` is the first part. An exception from
    ``on_progress`` stops the load and comes out of this function.
    """
    from workers.engines.llama_cpp.loader import load_engine

    return load_engine(path, options, on_progress)
