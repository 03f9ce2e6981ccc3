"""The identity of a model, for spilled KV states."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import mlx.core as mx

from jobs.catalog.catalog import find_adapter
from workers.engines.base import EngineOptions
from workers.engines.shared.identity import digest_of

_READ = (".json", ".safetensors")


def model_identity(path: Path, options: EngineOptions) -> str:
    """Digest of all that a KV state depends on besides its tokens: files, options, device."""
    folders = [path]
    if options.adapter is not None:
        folders.append(find_adapter(options.adapters_dir, options.adapter, "mlx").path)
    every = (file for folder in folders for file in folder.iterdir())
    # A cache may have links to files that were not downloaded.
    files = [file for file in every if file.suffix in _READ and file.is_file()]
    device = mx.default_device().type
    return digest_of(files, importlib.metadata.version("mlx-lm"), device, options.kv_bits)
