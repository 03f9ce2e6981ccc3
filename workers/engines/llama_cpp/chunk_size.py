"""How large a piece of a prompt a step may take."""

from __future__ import annotations

CHUNK_TARGET_S = 0.25
MIN_CHUNK = 32
FIRST_CHUNK = 64


class ChunkSize:
    """How many prompt tokens a step may take so that it lasts about ``target_s``."""

    def __init__(self, largest: int, target_s: float = CHUNK_TARGET_S) -> None:
        self._largest = largest
        self._target_s = target_s
        self._num_tokens = min(FIRST_CHUNK, largest)

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    def observe(self, num_tokens: int, elapsed_s: float) -> None:
        """Learn from a step that took ``num_tokens`` of prompts in ``elapsed_s``.

        At most doubled or halved a step: the first one also pays for reading the model from disk.
        A small chunk that was fast enough says nothing about large ones.
        """
        is_full = num_tokens >= self._num_tokens
        if num_tokens == 0 or (not is_full and elapsed_s <= self._target_s):
            return
        fitting = int(num_tokens * self._target_s / max(elapsed_s, 1e-6))
        bounded = min(max(fitting, self._num_tokens // 2), self._num_tokens * 2)
        self._num_tokens = min(max(bounded, MIN_CHUNK), self._largest)
