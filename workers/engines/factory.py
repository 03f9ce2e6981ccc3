"""Opens the engine of a backend. It alone imports the heavy libraries, one per process."""

from __future__ import annotations

from pathlib import Path

from jobs.contract.errors import ModelLoadError
from jobs.platform.file_limit import kept_file_limit
from workers.engines.base import Engine, EngineOptions, OnProgress


def open_engine(
    backend: str, path: Path, options: EngineOptions, on_progress: OnProgress
) -> Engine:
    """Load the model at ``path``; must be called by the thread that will drive the engine.

    Raises ``ModelLoadError`` with the reason.
    """
    if backend == "mlx":
        with kept_file_limit():
            from workers.engines.mlx.engine import open_mlx

        return open_mlx(path, options, on_progress)
    if backend == "llama-cpp":
        from workers.engines.llama_cpp.encoder import open_gguf

        return open_gguf(path, options, on_progress)
    if backend == "fake":
        from workers.engines.fake import open_fake

        return open_fake(path, options, on_progress)
    raise ModelLoadError(f"there is no engine for the backend {backend!r}")
