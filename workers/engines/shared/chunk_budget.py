"""How large a piece of a prompt a step may take."""

from __future__ import annotations

import math

DEFAULT_TARGET_S = 0.25
MIN_CHUNK = 32
MAX_CHUNK = 2048
FIRST_CHUNK = 64  # small, so that the first prompt of a slow model is bounded too
_LARGEST_FIRST_CHUNK = 256
_SLOW = 5e9  # floating-point operations per second: what any machine here can do
_FORGET = 1.01


def first_chunk(num_parameters: int, target_s: float = DEFAULT_TARGET_S) -> int:
    """With how many tokens a model of that size begins."""
    affordable = int(target_s * _SLOW / (2 * num_parameters))
    return min(max(affordable, FIRST_CHUNK), _LARGEST_FIRST_CHUNK)


class ChunkBudget:
    """How many prompt tokens a step may take so that they last about ``target_s``.

    What the step's decoding sequences take comes on top: it is due anyway, and a chunk that shrank
    for it would have all of a step's fixed costs paid for ever fewer tokens. Chunks of less than
    ``tile`` tokens are slower than one of a whole tile.
    """

    def __init__(
        self,
        target_s: float = DEFAULT_TARGET_S,
        *,
        first: int = FIRST_CHUNK,
        largest: int = MAX_CHUNK,
        tile: int = 1,
    ) -> None:
        self._target_s = target_s
        self._largest = largest
        self._tile = tile
        self._num_tokens = min(first, largest)
        self._row_s = math.inf  # of a decoding sequence; unknown yet

    @property
    def num_tokens(self) -> int:
        num_tiles = max(1, round(self._num_tokens / self._tile))
        return min(num_tiles * self._tile, self._largest)

    def record(self, num_tokens: int, elapsed_s: float, num_decoding: int = 0) -> None:
        """Learn from a step of ``num_tokens`` of prompts and ``num_decoding`` sequences.

        At most doubled or halved a step: the first one also pays for reading the model from disk.
        A small chunk that was fast enough says nothing about large ones.
        """
        if num_tokens == 0:
            # Near the least that was seen: of many rows, without what a step costs anyway.
            self._row_s = min(self._row_s * _FORGET, elapsed_s / max(num_decoding, 1))
            return
        rows_s = num_decoding * self._row_s if math.isfinite(self._row_s) else 0.0
        reading_s = max(elapsed_s - rows_s, elapsed_s / 2)
        if num_tokens < self.num_tokens and reading_s <= self._target_s:
            return
        fitting = int(num_tokens * self._target_s / max(reading_s, 1e-6))
        bounded = min(max(fitting, self._num_tokens // 2), self._num_tokens * 2)
        self._num_tokens = min(max(bounded, MIN_CHUNK), self._largest)
