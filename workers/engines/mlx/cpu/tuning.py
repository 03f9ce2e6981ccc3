"""Installs and removes the CPU tuning of a model."""

from __future__ import annotations

import mlx.nn as nn

from workers.engines.mlx.cpu import functions, layers, modules
from workers.engines.mlx.cpu.threads import shared

step_scope = shared
"""A context manager for a step of the engine."""


def install(module: nn.Module, vocab_size: int, kept_bytes: int) -> int:
    """Tune a float32 model whose weights have been read.

    Returns how much memory beside MLX's it takes, at most ``kept_bytes``.
    """
    num_bytes = layers.install(module, vocab_size, kept_bytes)
    functions.install(module)
    modules.install(module)
    return num_bytes


def remove(module: nn.Module) -> None:
    """Undo what the tuning of another model has changed for the whole process."""
    functions.remove(module)
