"""The size of a prefill chunk, learned from the time of past steps."""

from __future__ import annotations

import math

DEFAULT_TARGET_S = 0.2
MIN_CHUNK = 32
MAX_CHUNK = 2048
FIRST_CHUNK = 64  # small, because a slow model's speed is unknown at its first prompt
_LARGEST_FIRST_CHUNK = 256
_SLOW = 5e9  # floating-point operations per second that any machine reaches
_FORGET = 1.01
# Step budgets for a piece of a text that is embedded. Nothing else runs between two pieces; but a
# GPU that computes for seconds may be stopped by the system.
_EMBED_BUDGETS, _EMBED_BUDGETS_ON_GPU = 20, 4
_LARGEST_EMBED_PIECE = 512


def first_chunk(
    num_parameters: int, target_s: float = DEFAULT_TARGET_S, largest: int = _LARGEST_FIRST_CHUNK
) -> int:
    """Size in tokens of the first chunk for a model of this size."""
    affordable = int(target_s * _SLOW / (2 * num_parameters))
    return min(max(affordable, FIRST_CHUNK), largest)


class ChunkBudget:
    """How many prompt tokens a step may prefill in about ``target_s``.

    The time of the step's decoding sequences is not included: they have to run anyway, and
    shrinking the chunk for them would pay a step's fixed costs for fewer tokens. Chunks are whole
    tiles of ``tile`` tokens, because a smaller one is slower. ``is_gpu``: steps with few tokens
    tell nothing, because there each step takes a time of its own.
    """

    def __init__(
        self,
        target_s: float = DEFAULT_TARGET_S,
        *,
        first: int = FIRST_CHUNK,
        largest: int = MAX_CHUNK,
        tile: int = 1,
        is_gpu: bool = False,
    ) -> None:
        self._target_s = target_s
        self._largest = largest
        self._tile = tile
        self._is_gpu = is_gpu
        self._num_tokens = min(first, largest)
        self._row_s = math.inf  # time of one decoding sequence; not known yet

    @property
    def num_tokens(self) -> int:
        num_tiles = max(1, round(self._num_tokens / self._tile))
        return min(num_tiles * self._tile, self._largest)

    def record(
        self, num_tokens: int, elapsed_s: float, num_decoding: int = 0, *, is_cold: bool = False
    ) -> None:
        """Learn from a step with ``num_tokens`` prompt tokens and ``num_decoding`` sequences.

        One step at most doubles or halves the chunk, because the first one also reads the model
        from disk. A small chunk that was fast enough tells nothing about large ones, nor does one
        that ``is_cold``: after a rest, or the first of its kind, for which a GPU prepares.
        """
        if is_cold or (self._is_gpu and 0 < num_tokens < self.num_tokens / 2):
            return
        if num_tokens == 0:
            # Stay near the minimum: it is from a step of many rows, with the least fixed cost each.
            self._row_s = min(self._row_s * _FORGET, elapsed_s / max(num_decoding, 1))
            return
        rows_s = num_decoding * self._row_s if math.isfinite(self._row_s) else 0.0
        reading_s = max(elapsed_s - rows_s, elapsed_s / 2)
        if num_tokens < self.num_tokens and reading_s <= self._target_s:
            return
        fitting = int(num_tokens * self._target_s / max(reading_s, 1e-6))
        bounded = min(max(fitting, self._num_tokens // 2), self._num_tokens * 2)
        self._num_tokens = min(max(bounded, MIN_CHUNK), self._largest)


def embed_budget(num_parameters: int, step_budget_s: float, *, is_gpu: bool) -> ChunkBudget:
    """The budget for the pieces of a text that is embedded, of at most 512 tokens."""
    target_s = step_budget_s * (_EMBED_BUDGETS_ON_GPU if is_gpu else _EMBED_BUDGETS)
    first = first_chunk(num_parameters, target_s, _LARGEST_EMBED_PIECE)
    return ChunkBudget(target_s, first=first, largest=_LARGEST_EMBED_PIECE, is_gpu=is_gpu)
