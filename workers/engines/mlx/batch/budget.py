"""How much of a prompt one step may process."""

from __future__ import annotations

# Small at first, so that the first prompt of a slow model is bounded too.
_FIRST_CHUNK = 64
_LARGEST_FIRST_CHUNK = 256
_SLOW = 5e9  # floating-point operations per second: what any machine here can do
_MIN_CHUNK = 16
_MAX_CHUNK = 2048
DEFAULT_TARGET_S = 0.25


class ChunkBudget:
    """How many prompt tokens one step may process, so that it takes about ``target_s`` at most."""

    def __init__(self, target_s: float = DEFAULT_TARGET_S, num_parameters: int = 1 << 60) -> None:
        """``num_parameters`` of the model: a small one begins with more tokens."""
        self._target_s = target_s
        affordable = int(target_s * _SLOW / (2 * num_parameters))
        self.num_tokens = min(max(affordable, _FIRST_CHUNK), _LARGEST_FIRST_CHUNK)

    def record(self, num_tokens: int, elapsed_s: float) -> None:
        """Learn from a pass over ``num_tokens``: shrink when late, double when half is unused."""
        if elapsed_s > self._target_s:
            self.num_tokens = max(_MIN_CHUNK, int(num_tokens * self._target_s / elapsed_s))
        elif num_tokens >= self.num_tokens and elapsed_s < self._target_s / 2:
            self.num_tokens = min(_MAX_CHUNK, self.num_tokens * 2)
