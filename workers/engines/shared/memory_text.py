"""Sizes of memory in messages."""

from __future__ import annotations


def to_text(num_bytes: float) -> str:
    """A size in the largest unit of which there is at least one: ``3.2 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
