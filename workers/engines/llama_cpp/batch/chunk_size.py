"""How large a piece of a prompt a step may take."""

from __future__ import annotations

import math

CHUNK_TARGET_S = 0.25
MIN_CHUNK = 32
FIRST_CHUNK = 64
_FORGET = 1.01


class ChunkSize:
    """How many prompt tokens a step may take so that they last about ``target_s``.

    What the step's decoding sequences take comes on top: it is due anyway, and a chunk that shrank
    for it would have all of a step's fixed costs paid for ever fewer tokens.
    """

    def __init__(self, largest: int, target_s: float = CHUNK_TARGET_S, tile: int = 1) -> None:
        """``tile``: chunks of less than so many tokens are slower than one of a whole tile."""
        self._largest = largest
        self._target_s = target_s
        self._tile = tile
        self._num_tokens = min(FIRST_CHUNK, largest)
        self._row_s = math.inf  # of a decoding sequence; unknown yet

    @property
    def num_tokens(self) -> int:
        num_tiles = max(1, round(self._num_tokens / self._tile))
        return min(num_tiles * self._tile, self._largest)

    def observe(self, num_tokens: int, num_decoding: int, elapsed_s: float) -> None:
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
