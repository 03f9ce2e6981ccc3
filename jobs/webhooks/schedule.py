"""When a delivery that failed is tried again."""

from __future__ import annotations

from typing import Final

_MINUTE = 60.0
_HOUR = 3600.0
DELAYS_S: Final = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
"""Seconds after each failed attempt, those of Standard Webhooks. The first attempt is at once."""
GIVE_UP_S: Final = 72 * _HOUR


def next_delay_s(num_failed: int, elapsed_s: float, retry_after_s: float | None) -> float | None:
    """Seconds until the next attempt; ``None`` if there is none.

    ``num_failed`` counts the attempts so far, ``elapsed_s`` runs from the first. A receiver may ask
    for a later attempt, not for an earlier one. No attempt is later than 72 hours.
    """
    left_s = GIVE_UP_S - elapsed_s
    if num_failed > len(DELAYS_S) or left_s <= 0:
        return None
    return min(max(DELAYS_S[num_failed - 1], retry_after_s or 0.0), left_s)
