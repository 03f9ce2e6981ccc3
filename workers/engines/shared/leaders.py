"""Prompts that begin alike: one reads the beginning, the others wait for it and take a copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

MIN_AWAITED = 32  # tokens; a shorter common beginning is computed again sooner than waited for

Reader = TypeVar("Reader")


def choose_leader(
    readers: Iterable[tuple[int, Reader]], num_at_hand: int
) -> tuple[int, Reader] | None:
    """Of (number of common tokens, who reads them) the longest, if it is worth waiting for.

    ``num_at_hand`` tokens are there without waiting.
    """
    found = max(readers, key=lambda pair: pair[0], default=None)
    return found if found is not None and found[0] >= num_at_hand + MIN_AWAITED else None
