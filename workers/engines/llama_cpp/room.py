"""Who may run: the slots and KV cells that sequences reserve, and the size of a prefill chunk."""

from __future__ import annotations

import heapq

CHUNK_TARGET_S = 0.25
MIN_CHUNK = 32
FIRST_CHUNK = 64


class Room:
    """Slots (ids of llama.cpp sequences) and KV cells, both reserved before a sequence starts.

    With every cell that a sequence can come to need reserved, no decode can run out of cells, and
    no sequence is ever hurt by a neighbour's length.
    """

    def __init__(self, num_slots: int, num_cells: int) -> None:
        self._free_slots = list(range(num_slots))
        self._num_free_cells = num_cells

    def take(self, num_cells: int) -> int | None:
        """Reserve a slot with ``num_cells``; the slot, or ``None`` when there is no room now."""
        if not self._free_slots or num_cells > self._num_free_cells:
            return None
        self._num_free_cells -= num_cells
        return heapq.heappop(self._free_slots)

    def give_back(self, slot: int, num_cells: int) -> None:
        """Free what ``take`` reserved."""
        self._num_free_cells += num_cells
        heapq.heappush(self._free_slots, slot)


class ChunkSize:
    """How many prompt tokens a step may take so that it lasts about ``CHUNK_TARGET_S``."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
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
        if num_tokens == 0 or (not is_full and elapsed_s <= CHUNK_TARGET_S):
            return
        fitting = int(num_tokens * CHUNK_TARGET_S / max(elapsed_s, 1e-6))
        bounded = min(max(fitting, self._num_tokens // 2), self._num_tokens * 2)
        self._num_tokens = min(max(bounded, MIN_CHUNK), self._largest)
