"""A sequence on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workers.engines.base import FinishReason, Sequence
from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.sampling.sampler import Sampler

_FORESEEN = 256

PromptEntry = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(eq=False, slots=True)
class Running:
    """A sequence and how far it has come, prompt and generated tokens as one row.

    ``tokens[:num_tokens]`` is the text so far, of which the first ``num_in_cache`` tokens are in
    the KV cache; the rest is pending: many at a prompt's start or after a preemption, then one, the
    token generated last. ``seq_id`` is -1 while it waits.
    """

    sequence: Sequence
    adapter: str | None
    limit: int  # tokens to generate at most: max_tokens, or fewer where the context ends
    tokens: IntArray
    num_tokens: int
    sampler: Sampler
    seq_id: int = -1
    num_in_cache: int = 0
    num_cached: int = 0
    leader: Running | None = None
    """Another one that is reading the same beginning, which will be shared, not read twice."""
    scores: list[PromptEntry] = field(default_factory=list)
    num_rounds_without_hit: int = 0

    @property
    def num_prompt(self) -> int:
        return len(self.sequence.prompt)

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.num_prompt

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_in_cache

    @property
    def num_remaining(self) -> int:
        """Tokens that it may still generate."""
        return self.limit - self.num_generated

    @property
    def expected_output(self) -> int:
        """How many it is reckoned with: few generate all that they may."""
        return min(self.num_remaining, _FORESEEN)

    @property
    def known(self) -> IntArray:
        return self.tokens[: self.num_tokens]

    @property
    def is_scoring(self) -> bool:
        """Its prompt's own log-probabilities are wanted and not yet all there."""
        return self.sequence.num_prompt_logprobs is not None and self.num_generated == 0

    def append(self, token: int) -> None:
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1

    def finish_after(self, *, is_end: bool) -> FinishReason | None:
        """Why the token just appended is the last one, if it is."""
        if is_end:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_remaining == 0 else None


def make_running(
    sequence: Sequence, adapter: str | None, context_length: int, sampler: Sampler
) -> Running:
    """A sequence that has not begun."""
    num_prompt = len(sequence.prompt)
    limit = min(sequence.max_tokens, context_length - num_prompt)
    tokens = np.empty(num_prompt + limit, np.int32)
    tokens[:num_prompt] = sequence.prompt
    return Running(sequence, adapter, limit, tokens, num_prompt, sampler)
