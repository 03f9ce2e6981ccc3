"""Search for strings in a text that arrives in chunks."""

from __future__ import annotations

from collections.abc import Collection


def num_held_back(text: str, wanted: Collection[str]) -> int:
    """Length of the longest suffix of ``text`` that is a proper prefix of one of ``wanted``."""
    longest = max(map(len, wanted), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        end = text[-length:]
        if any(one.startswith(end) for one in wanted):
            return length
    return 0
