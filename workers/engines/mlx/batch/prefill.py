"""Prefill of prompts in chunks, in turn and within a budget, before they join the batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import mlx.core as mx

from workers.engines.base import SequenceFailure, StepEvent
from workers.engines.failures import failure_of
from workers.engines.mlx import device, library
from workers.engines.mlx.batch.pieces import PiecesOnTheWay
from workers.engines.mlx.batch.prompt import MIN_REUSED, Prompt
from workers.engines.mlx.batch.row import DrawnTokens, Row, is_last
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match, PromptStore
from workers.engines.mlx.head import Head
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.mlx.memory import Memory, StateRoom
from workers.engines.mlx.sampling.sampler import BatchSampler
from workers.engines.shared.chunk_budget import MAX_CHUNK, ChunkBudget
from workers.engines.shared.spill import StateLostError
from workers.engines.shared.token_key import first, to_key

# Budgets of a piece that nobody waits behind; two pieces are on their way.
_BUDGETS_ALONE = 2

Joined = Callable[[Row, PromptCache], None]
Find = Callable[[bytes, int], Match | None]
"""``find(key, max_tokens)``: the longest available prefix of a prompt."""
FindSpilled = Callable[[bytes, int, int], Match | None]
"""``find(key, max_tokens, num_cached)``: a prefix on disk enough longer than ``num_cached``."""


class PrefillQueue:
    """Prompts in prefill, in turn: a short one never waits for the whole of a long one.

    A prompt with a common prefix with an earlier one waits until that has prefilled it, and copies
    it. ``find_running`` searches the prompts of the running batch. With ``is_reusing`` False every
    prompt is prefilled from its first token.
    """

    def __init__(
        self,
        model: Model,
        store: PromptStore,
        find_running: Find,
        find_spilled: FindSpilled | None = None,
        *,
        is_reusing: bool = True,
        budget: ChunkBudget | None = None,
        head: Head | None = None,
        end_ids: frozenset[int] = frozenset(),
        memory: Memory | None = None,
        room: StateRoom | None = None,
    ) -> None:
        """``head``: the model's, if it has been found; ``end_ids``: end-of-generation tokens.

        ``room``: limits a piece's memory; ``None``: there is no limit.
        """
        self._memory = memory or Memory()
        self._room = room
        self._joining: Row | None = None
        self._head = head
        self._end_ids = end_ids
        self._is_reusing = is_reusing
        self._find_spilled = find_spilled
        self._model = model
        self._store = store
        self._find_running = find_running
        self._prompts: deque[Prompt] = deque()
        self._budget = budget or ChunkBudget()
        self._pieces = PiecesOnTheWay(self._budget) if device.is_gpu() else None

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def rows(self) -> list[Row]:
        """The rows of the prompts, also of the one that is just joining the batch."""
        rows = [prompt.row for prompt in self._prompts]
        return rows if self._joining is None else [*rows, self._joining]

    @property
    def num_taken_over(self) -> int:
        """Bytes of kept states that prompts not yet begun will take over; these leave last."""
        beginning = [prompt for prompt in self._prompts if not prompt.is_started]
        return sum(
            self._store.prefer(prompt.row.prompt_key, prompt.num_reusable)
            for prompt in beginning
            if self._may_reuse(prompt)
        )

    def add(self, row: Row) -> None:
        prompt = Prompt(row)
        if self._may_reuse(prompt):
            match = self._best_match(prompt)
            prompt.follow(self._prompts, 0 if match is None else match.num_tokens)
        self._prompts.append(prompt)

    def _may_reuse(self, prompt: Prompt) -> bool:
        return self._is_reusing and not prompt.wants_logprobs

    def remove(self, sequence_id: int) -> None:
        """Remove a prompt; its state so far is kept. An unknown id is ignored."""
        for prompt in list(self._prompts):
            if prompt.row.sequence.sequence_id == sequence_id:
                self._prompts.remove(prompt)
                self._forget_pieces()
                prompt.is_gone = True
                self._keep(prompt)

    def _keep(self, prompt: Prompt) -> None:
        if prompt.num_done > 0:
            self._store.put(first(prompt.row.prompt_key, prompt.num_done), prompt.cache)

    def clear(self) -> None:
        self._prompts.clear()

    def step(self, join: Joined, *, is_alone: bool = False) -> list[StepEvent]:
        """Prefill up to a budget of tokens; ``join`` is called with each prompt that is done.

        On a GPU several budgets if the first prompt ``is_alone``: nobody waits for a token.
        """
        num_tokens = self._budget.num_tokens
        if self._pieces is not None:
            self._pieces.note_step()
            if is_alone:
                num_tokens = min(_BUDGETS_ALONE * num_tokens, MAX_CHUNK)
        started, num_left = time.perf_counter(), num_tokens
        events: list[StepEvent] = []
        for _ in range(len(self._prompts)):
            prompt = self._prompts.popleft()
            if prompt.must_wait():
                self._prompts.append(prompt)
                continue
            try:
                num_left -= self._advance(prompt, num_left)
                events += prompt.events()
                self._dispatch(prompt, join)
            except Exception as error:  # out of memory, a model's own code: other prompts go on
                device.raise_if_lost(error)
                self._forget_pieces()
                prompt.is_gone = True
                events.append(_failure(prompt, error))
            finally:
                self._joining = None
            if num_left <= 0:
                break
        self._record(num_tokens - num_left, time.perf_counter() - started)
        return events

    def _advance(self, prompt: Prompt, max_tokens: int) -> int:
        """Prefill one chunk of a prompt and return its length, 0 for a prompt of one token."""
        if not prompt.is_started:
            self._start(prompt)
        chunk = prompt.next_chunk(self._fitting(prompt, max_tokens))
        if self._head is not None and prompt.may_end_with(len(chunk)):
            self._finish(prompt, chunk, self._head)
        elif chunk:
            logits = self._model(mx.array(chunk, dtype=mx.uint32)[None], cache=prompt.cache)
            prompt.record(len(chunk), logits)
            # The logits are computed only if their log-probabilities are requested.
            if self._pieces is None:
                mx.eval([layer.state for layer in prompt.cache], prompt.pending())
            else:
                self._pieces.add(prompt.cache, prompt.pending(), len(chunk))
            self._keep_checkpoint(prompt)
        return len(chunk)

    def _keep_checkpoint(self, prompt: Prompt) -> None:
        """Keep the state so far if the prompt has stopped for it."""
        if prompt.is_at_checkpoint:
            key = first(prompt.row.prompt_key, prompt.num_done)
            self._store.put(key, kv.prefix(prompt.cache, prompt.num_done))
            prompt.note_kept()

    def _fitting(self, prompt: Prompt, max_tokens: int) -> int:
        """How many of ``max_tokens`` the free memory allows."""
        if self._room is None:
            return max_tokens
        max_tokens = min(max_tokens, max(prompt.num_left, 1))
        return self._room.piece(max_tokens, prompt.num_done, is_scoring=prompt.wants_logprobs)

    def _finish(self, prompt: Prompt, chunk: list[int], head: Head) -> None:
        """Prefill the last chunk and the last token together, and draw the first new token."""
        row = prompt.row
        inputs = mx.array([*chunk, row.tokens[-1]], dtype=mx.uint32)
        with head.last_only():
            logits = self._model(inputs[None], cache=prompt.cache)[:, -1]
        draw = BatchSampler([row], self._end_ids).draw(logits, inputs[-1:])
        if self._pieces is None:
            mx.eval([layer.state for layer in prompt.cache], draw.arrays())
        else:
            self._pieces.finish(prompt.cache, draw.arrays(), len(chunk))
        prompt.record(len(chunk), logits)
        prompt.first_event = DrawnTokens(draw, self._end_ids).append_to(row, 0)
        row.position += 1

    def _start(self, prompt: Prompt) -> None:
        self._open(prompt)
        if self._may_reuse(prompt):
            prompt.plan_checkpoints(self._store.num_known(prompt.row.prompt_key))

    def _open(self, prompt: Prompt) -> None:
        match = self._best_match(prompt) if self._may_reuse(prompt) else None
        while match is not None:
            try:
                prompt.start(match.take(), match.num_tokens)
                return
            except StateLostError:
                match = self._best_match(prompt)
        prompt.start(library.new_cache(self._model), 0)

    def _best_match(self, prompt: Prompt) -> Match | None:
        """The longest prefix that is kept, running or in prefill; or a much longer one on disk."""
        key, max_tokens = prompt.row.prompt_key, prompt.num_reusable
        found = [self._store.find(key, max_tokens), self._find_running(key, max_tokens)]
        found += [other.find(key, max_tokens) for other in self._prompts]
        usable = [match for match in found if match and match.num_tokens >= MIN_REUSED]
        best = max(usable, key=lambda match: match.num_tokens, default=None)
        if self._find_spilled is None:
            return best
        return self._find_spilled(key, max_tokens, best.num_tokens if best else 0) or best

    def _dispatch(self, prompt: Prompt, join: Joined) -> None:
        """Pass a prompt on: to the prompt cache if it has ended, to the batch, or to the queue."""
        row = prompt.row
        if prompt.first_event is not None and is_last(prompt.first_event):
            self._store.put(to_key(row.tokens[: row.position]), prompt.cache)
        elif prompt.num_left == 0:
            self._forget_pieces()
            self._joining = row
            join(row, prompt.cache)
        else:
            self._prompts.append(prompt)

    def _forget_pieces(self) -> None:
        if self._pieces is not None:
            self._pieces.forget()

    def _record(self, num_tokens: int, elapsed_s: float) -> None:
        if num_tokens > 0 and self._pieces is None:
            self._budget.record(num_tokens, elapsed_s)
        if num_tokens > 0:
            self._memory.trim_pool()


def _failure(prompt: Prompt, error: Exception) -> SequenceFailure:
    sequence_id = prompt.row.sequence.sequence_id
    if isinstance(error, RuntimeError):  # MLX's own, mostly that memory ran out
        return SequenceFailure(sequence_id, str(error))
    return failure_of(sequence_id, error)
