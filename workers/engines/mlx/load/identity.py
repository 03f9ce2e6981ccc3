"""Which model a kept KV state belongs to."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from workers.engines.base import EngineOptions
from workers.engines.mlx.load.adapters import find_adapter

_FORMAT = "1"  # of the spilled files


def model_identity(path: Path, options: EngineOptions) -> str:
    """A hash of all that the KV state of some tokens depends on: files, options, device."""
    files = list(_facts(path))
    if options.adapter is not None:
        files += _facts(find_adapter(options.adapters_dir, options.adapter))
    facts = [_FORMAT, importlib.metadata.version("mlx-lm"), mx.default_device().type, files]
    return hashlib.blake2b(repr([*facts, options.kv_bits]).encode(), digest_size=20).hexdigest()


def _facts(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of what a model or an adapter is read from."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        stat = path.stat()
        yield str(path.resolve()), stat.st_size, stat.st_mtime_ns
