"""Prompts on their way into the running batch: processed in chunks, in turn, within a budget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.base import Prefill, SequenceFailure, StepEvent
from workers.engines.mlx import library
from workers.engines.mlx.batch import Row
from workers.engines.mlx.library import Model, PromptCache

# Small at first, so that the first prompt of a slow model is bounded too.
_FIRST_CHUNK = 64
_MIN_CHUNK = 16
_MAX_CHUNK = 2048
_TARGET_S = 0.25

Joined = Callable[[Row, PromptCache], None]


class ChunkBudget:
    """How many prompt tokens one step may process, so that it takes at most about 250 ms."""

    def __init__(self) -> None:
        self.num_tokens = _FIRST_CHUNK

    def record(self, num_tokens: int, elapsed_s: float) -> None:
        """Learn from a pass over ``num_tokens``: shrink when late, double when half is unused."""
        if elapsed_s > _TARGET_S:
            self.num_tokens = max(_MIN_CHUNK, int(num_tokens * _TARGET_S / elapsed_s))
        elif num_tokens >= self.num_tokens and elapsed_s < _TARGET_S / 2:
            self.num_tokens = min(_MAX_CHUNK, self.num_tokens * 2)


@dataclass(eq=False, slots=True)
class Prompt:
    """A prompt in progress: ``num_done`` of its tokens are in ``cache``."""

    row: Row
    cache: PromptCache
    num_done: int = 0

    @property
    def num_left(self) -> int:
        """Tokens to process here: all but the last, which the batch reads to draw the first."""
        return len(self.row.tokens) - 1 - self.num_done

    def event(self) -> Prefill:
        total = len(self.row.tokens)
        done = total if self.num_left == 0 else self.num_done
        return Prefill(self.row.sequence.sequence_id, done, total)


class PrefillQueue:
    """Prompts in progress, taken in turn: a short one never waits for the whole of a long one."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._prompts: deque[Prompt] = deque()
        self._budget = ChunkBudget()

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, row: Row) -> None:
        self._prompts.append(Prompt(row, library.new_cache(self._model)))

    def remove(self, sequence_id: int) -> None:
        """Forget a prompt; an unknown id is ignored."""
        kept = [p for p in self._prompts if p.row.sequence.sequence_id != sequence_id]
        self._prompts = deque(kept)

    def clear(self) -> None:
        self._prompts.clear()

    def step(self, join: Joined) -> list[StepEvent]:
        """Process up to a budget of tokens; ``join`` takes each prompt that is done."""
        started, num_left = time.perf_counter(), self._budget.num_tokens
        events: list[StepEvent] = []
        for _ in range(len(self._prompts)):
            prompt = self._prompts.popleft()
            try:
                num_left -= self._advance(prompt, num_left)
            except RuntimeError as error:  # MLX's own, out of memory for one: others may fit
                events.append(SequenceFailure(prompt.row.sequence.sequence_id, str(error)))
                continue
            events.append(prompt.event())
            self._pass_on(prompt, join)
            if num_left <= 0:
                break
        self._learn(self._budget.num_tokens - num_left, time.perf_counter() - started)
        return events

    def _advance(self, prompt: Prompt, max_tokens: int) -> int:
        """Process one chunk of a prompt and return its length, 0 for a prompt of one token."""
        first, num = prompt.num_done, min(prompt.num_left, max_tokens)
        if num > 0:
            chunk = mx.array(prompt.row.tokens[first : first + num], dtype=mx.uint32)
            self._model(chunk[None], cache=prompt.cache)
            # The logits are never computed: only the caches are.
            mx.eval([layer.state for layer in prompt.cache])
            prompt.num_done += num
        return num

    def _pass_on(self, prompt: Prompt, join: Joined) -> None:
        if prompt.num_left == 0:
            join(prompt.row, prompt.cache)
        else:
            self._prompts.append(prompt)

    def _learn(self, num_tokens: int, elapsed_s: float) -> None:
        if num_tokens > 0:
            self._budget.record(num_tokens, elapsed_s)
            mx.clear_cache()
