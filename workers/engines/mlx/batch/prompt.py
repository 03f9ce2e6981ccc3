"""One prompt in prefill: how far it is, whom it waits for, what it reports."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx

from workers.engines.base import Prefill, PromptLogprobs, SequenceFailure, StepEvent, Token
from workers.engines.mlx.batch.prompt_logprobs import LogprobPass
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.leaders import choose_leader
from workers.engines.shared.token_key import num_common

# A copy of a few tokens' state costs more than computing it.
MIN_REUSED = 8


class Prompt:
    """``num_done`` of its tokens are in ``cache``, once it is started."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.cache: PromptCache = []
        self.is_started = False
        self.is_gone = False
        self.num_done = 0
        self.first_event: Token | SequenceFailure | None = None
        """The answer's first token, if the last one was read with the others, or why there is none.
        """
        self._num_cached = 0
        self._leader: Prompt | None = None
        self._num_awaited = 0
        self._stops: set[int] = set()
        num_top = row.sequence.num_prompt_logprobs
        self._logprobs = None if num_top is None else LogprobPass(num_top)

    @property
    def num_reusable(self) -> int:
        """All tokens but the last, of which comes the first token of the answer."""
        return len(self.row.sequence.prompt) - 1

    @property
    def wants_logprobs(self) -> bool:
        """Whether its own log-probabilities are wanted: then no token can be left out."""
        return self._logprobs is not None

    @property
    def num_left(self) -> int:
        """Tokens to process here."""
        return self.num_reusable - self.num_done

    def follow(self, others: Iterable[Prompt], num_cached: int) -> None:
        """Wait for the one of ``others`` with the longest common beginning, if that is worth it.

        ``num_cached`` tokens are there without waiting.
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
        """Whether the awaited beginning is still to come."""
        leader = self._leader
        return leader is not None and not leader.is_gone and leader.num_done < self._num_awaited

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest beginning of ``key`` that is done here."""
        num = min(num_common(self.row.prompt_key, key), max_tokens, self.num_done)
        if num == 0 or not (num == self.num_done or kv.can_trim(self.cache)):
            return None
        return Match(num, lambda: kv.snapshot(self.cache, num))

    def start(self, cache: PromptCache, num_cached: int) -> None:
        """Begin with a ``cache`` that holds the first ``num_cached`` tokens."""
        self.cache, self.is_started = cache, True
        self.num_done = self._num_cached = num_cached

    def next_chunk(self, max_tokens: int) -> list[int]:
        """The tokens to process next: no further than where another prompt waits."""
        if self._logprobs is not None:
            max_tokens = min(max_tokens, self._logprobs.max_chunk)
        stops = [stop for stop in self._stops if stop > self.num_done]
        end = min(self.num_reusable, self.num_done + max_tokens, *stops)
        return self.row.tokens[self.num_done : end]

    def may_end_with(self, num_tokens: int) -> bool:
        """Whether the last token may be read with the next ``num_tokens``.

        Where tokens cannot be taken back, the state before it has to be kept for who asks again.
        """
        is_end = 0 < num_tokens == self.num_left
        return is_end and self._logprobs is None and kv.can_trim_after(self.cache, num_tokens + 1)

    def record(self, num_tokens: int, logits: mx.array) -> None:
        """``num_tokens`` more are in the cache; ``logits`` (1, num_tokens, vocab) came of them."""
        first = self.num_done
        self.num_done += num_tokens
        if self._logprobs is not None:
            self._logprobs.add(logits[0], self.row.tokens[first + 1 : self.num_done + 1])

    def pending(self) -> list[mx.array]:
        """What is to be computed with the chunk, besides the cache."""
        return [] if self._logprobs is None else self._logprobs.pending()

    def events(self) -> list[StepEvent]:
        """Progress after a chunk, and at the end what else was asked for."""
        sequence_id, total = self.row.sequence.sequence_id, len(self.row.sequence.prompt)
        done = total if self.num_left == 0 else self.num_done
        progress = Prefill(sequence_id, done, total, self._num_cached)
        if self.first_event is not None:
            return [progress, self.first_event]
        if self._logprobs is None or self.num_left > 0:
            return [progress]
        return [progress, PromptLogprobs(sequence_id, self._logprobs.entries())]
