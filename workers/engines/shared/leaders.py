"""Prompts with a common prefix: the leader prefills it, the others wait and then share it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

MIN_AWAITED = 32  # tokens; computing fewer again is faster than waiting

Reader = TypeVar("Reader")


def choose_leader(
    readers: Iterable[tuple[int, Reader]], num_available: int
) -> tuple[int, Reader] | None:
    """The (number of common tokens, reader) with most common tokens, if waiting for it is worth it.

    ``num_available`` tokens can be had without waiting.
    """
    found = max(readers, key=lambda pair: pair[0], default=None)
    return found if found is not None and found[0] >= num_available + MIN_AWAITED else None
