"""The pieces of prompts on their way on a GPU.

The next piece is scheduled before the last one is waited for, so that the GPU does not idle while
Python builds a graph. Two are on their way at most.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.chunk_budget import ChunkBudget

# After such a rest the system may have given the weights' memory away, or slowed the GPU down.
_REST_S = 1.0


@dataclass(frozen=True, slots=True)
class _Piece:
    """``mark`` is computed when the piece is."""

    mark: mx.array
    num_tokens: int
    scheduled_at: float
    is_cold: bool


class PiecesOnTheWay:
    """Waits for all pieces but the newest; ``budget`` learns from their times."""

    def __init__(self, budget: ChunkBudget) -> None:
        self._budget = budget
        self._newest: _Piece | None = None
        self._ended_at = self._worked_until = -_REST_S
        self._is_cold = True

    def note_step(self) -> None:
        """A step begins: the pieces in it are cold if the GPU has rested before."""
        now = time.perf_counter()
        self._is_cold = now - self._worked_until > _REST_S
        self._worked_until = now

    def add(self, cache: PromptCache, others: list[mx.array], num_tokens: int) -> None:
        """Schedule the piece that leaves the state ``cache``, and ``others`` with it."""
        previous = self._newest
        mark = _mark_of(cache)
        scheduled_at = time.perf_counter()
        mx.async_eval([layer.state for layer in cache], others, mark)
        self._newest = _Piece(mark, num_tokens, scheduled_at, self._is_cold)
        if previous is not None:
            self._wait_for(previous)

    def finish(self, cache: PromptCache, others: list[mx.array], num_tokens: int) -> None:
        """As ``add``, but wait for this one too."""
        self.add(cache, others, num_tokens)
        assert self._newest is not None
        self._wait_for(self._newest)
        mx.eval(others)
        self._newest = None

    def forget(self) -> None:
        """Do not wait for the newest: what needs it is waited for, or nothing needs it."""
        self._newest = None

    def _wait_for(self, piece: _Piece) -> None:
        mx.eval(piece.mark)
        now = time.perf_counter()
        elapsed_s = now - max(piece.scheduled_at, self._ended_at)
        self._ended_at = self._worked_until = now
        self._budget.record(piece.num_tokens, elapsed_s, is_cold=piece.is_cold)


def _mark_of(cache: PromptCache) -> mx.array:
    """A number that depends on the state.

    It has memory of its own: to hold a part of the state would make the next piece copy the state.
    """
    newest = kv.arrays(cache)[-1]
    return newest[(slice(0, 1),) * newest.ndim].astype(mx.float32) + 1.0
