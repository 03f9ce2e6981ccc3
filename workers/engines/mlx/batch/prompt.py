"""One prompt in prefill: its progress, its leader, its events.

Also a sequence that is read again, with the tokens that it has already.
"""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx

from workers.engines.base import Prefill, PromptLogprobs, SequenceFailure, StepEvent, Token
from workers.engines.mlx.batch.prompt_logprobs import LogprobPass
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.checkpoint import MIN_SAVED, checkpoint_of
from workers.engines.shared.leaders import choose_leader
from workers.engines.shared.token_key import num_common

# To copy the state of fewer tokens costs more than to compute it.
MIN_REUSED = 8


class Prompt:
    """A prompt in prefill; after ``start``, ``num_done`` of its tokens are in ``cache``."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.cache: PromptCache = []
        self.is_started = False
        self.is_gone = False
        self.num_done = 0
        self.first_event: Token | SequenceFailure | None = None
        """The first new token, or its failure, if the last token was prefilled with the others."""
        self._num_cached = 0
        self._leader: Prompt | None = None
        self._num_awaited = 0
        self._stops: set[int] = set()
        self._checkpoints: set[int] = set()
        self._num_tokens = len(row.tokens)
        self._is_resumed = row.num_generated > 0
        num_top = row.sequence.num_prompt_logprobs
        wants_logprobs = num_top is not None and not self._is_resumed
        self._logprobs = LogprobPass(num_top or 0) if wants_logprobs else None

    @property
    def num_reusable(self) -> int:
        """All tokens but the last, whose logits give the first new token."""
        return self._num_tokens - 1

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities of the prompt are requested, which need every token."""
        return self._logprobs is not None

    @property
    def num_left(self) -> int:
        """Tokens still to prefill."""
        return self.num_reusable - self.num_done

    def follow(self, others: Iterable[Prompt], num_cached: int) -> None:
        """Wait for the one of ``others`` with the longest common prefix, if that is worth it.

        ``num_cached`` tokens can be had without waiting.
        """
        commons = [(self._num_common(other), other) for other in others if not other.is_gone]
        found = choose_leader(commons, num_cached)
        if found is not None:
            self._num_awaited, self._leader = found
            self._leader._stops.add(self._num_awaited)

    def _num_common(self, other: Prompt) -> int:
        num = num_common(other.row.prompt_key, self.row.prompt_key)
        return min(num, self.num_reusable, other.num_reusable)

    def must_wait(self) -> bool:
        """Whether the leader is still prefilling the common prefix."""
        leader = self._leader
        return leader is not None and not leader.is_gone and leader.num_done < self._num_awaited

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest prefix of ``key`` that this prompt has prefilled."""
        num = min(num_common(self.row.prompt_key, key), max_tokens, self.num_done)
        if num == 0 or not (num == self.num_done or kv.can_trim(self.cache)):
            return None
        return Match(num, lambda: kv.snapshot(self.cache, num))

    def start(self, cache: PromptCache, num_cached: int) -> None:
        """Start with a ``cache`` that holds the first ``num_cached`` tokens."""
        self.cache, self.is_started = cache, True
        self.num_done = self._num_cached = num_cached

    def plan_checkpoints(self, num_known: int) -> None:
        """Stop where states are to be kept that cannot be had from the prompt's end.

        Before the answer, and where an earlier prompt began to differ, after ``num_known`` tokens.
        """
        if kv.can_trim_after(self.cache, self._num_tokens - self.num_done):
            return
        places = {checkpoint_of(self.row.sequence), num_known}
        self._checkpoints = {place for place in places if place >= self.num_done + MIN_SAVED}
        self._stops |= self._checkpoints

    @property
    def is_at_checkpoint(self) -> bool:
        """Whether its state is to be kept now."""
        return self.num_done in self._checkpoints

    def note_kept(self) -> None:
        """Note that its state has been kept at a checkpoint."""
        if self.num_done == checkpoint_of(self.row.sequence):
            self.row.has_checkpoint = True

    def next_chunk(self, max_tokens: int) -> list[int]:
        """Up to ``max_tokens`` to prefill next; a chunk ends where a waiting prompt can start."""
        if self._logprobs is not None:
            max_tokens = min(max_tokens, self._logprobs.max_chunk)
        stops = [stop for stop in self._stops if stop > self.num_done]
        end = min(self.num_reusable, self.num_done + max_tokens, *stops)
        return self.row.tokens[self.num_done : end]

    def may_end_with(self, num_tokens: int) -> bool:
        """Whether the last token may be prefilled with the next ``num_tokens``.

        Not if the cache cannot be trimmed then, and no earlier state is kept: that before the last
        token has to be, for the next request with this prompt.
        """
        is_end = 0 < num_tokens == self.num_left
        if not is_end or self._logprobs is not None:
            return False
        return self.row.has_checkpoint or kv.can_trim_after(self.cache, num_tokens + 1)

    def record(self, num_tokens: int, logits: mx.array) -> None:
        """Note ``num_tokens`` more in the cache, with their ``logits`` (1, num_tokens, vocab)."""
        first = self.num_done
        self.num_done += num_tokens
        if self._logprobs is not None:
            self._logprobs.add(logits[0], self.row.tokens[first + 1 : self.num_done + 1])

    def pending(self) -> list[mx.array]:
        """Arrays to evaluate with the chunk, besides the cache."""
        return [] if self._logprobs is None else self._logprobs.pending()

    def events(self) -> list[StepEvent]:
        """Progress after a chunk; at the end also the first token or the log-probabilities.

        No progress of a sequence that is read again.
        """
        if self._is_resumed:
            return [] if self.first_event is None else [self.first_event]
        sequence_id, total = self.row.sequence.sequence_id, len(self.row.sequence.prompt)
        done = total if self.num_left == 0 else self.num_done
        progress = Prefill(sequence_id, done, total, self._num_cached)
        if self.first_event is not None:
            return [progress, self.first_event]
        if self._logprobs is None or self.num_left > 0:
            return [progress]
        return [progress, PromptLogprobs(sequence_id, self._logprobs.entries())]
