"""All that a CPU computes in another way, behind one switch."""

from __future__ import annotations

import mlx.nn as nn

from workers.engines.mlx.cpu import functions, layers, modules
from workers.engines.mlx.cpu.threads import shared

step_scope = shared
"""A context for a step of the engine."""


def install(module: nn.Module, vocab_size: int) -> None:
    """For a model whose weights are read, and of float32."""
    layers.install(module, vocab_size)
    functions.install(module)
    modules.install(module)


def remove(module: nn.Module) -> None:
    """What another model of this process may have left of it."""
    functions.remove(module)
