"""Which architectures a run tries: all in ``make prove``, one or two of each memory else."""

from __future__ import annotations

import os
from collections.abc import Iterable

EVERY = "MGS_EVERY_ARCHITECTURE"

# Dense, routed, with a sliding window, with latent attention, hybrid, recurrent, encoder.
GGUF = ("llama", "gpt-oss", "deepseek2", "lfm2", "rwkv7", "bert")
MLX = ("llama", "qwen3_moe", "gemma3_text", "deepseek_v3", "lfm2", "mamba2")


def chosen(names: Iterable[str], few: tuple[str, ...]) -> list[str]:
    """All names, or those of the ``few`` that are among them."""
    return [name for name in names if name in few or os.environ.get(EVERY)]
