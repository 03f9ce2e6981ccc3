"""A sequence with its progress in the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workers.engines.base import FinishReason, Sequence
from workers.engines.llama_cpp.batch.decode_batch import IntArray
from workers.engines.llama_cpp.sampling.sampler import Sampler

_MAX_EXPECTED_OUTPUT = 256

PromptEntry = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(eq=False, slots=True)
class Running:
    """A sequence and its progress.

    ``tokens[:num_tokens]`` are the prompt and the generated tokens. The first ``num_in_cache`` are
    in the KV cache, the rest is uncomputed: many at the start or after a preemption, later only
    the last generated token. ``seq_id`` is -1 while the sequence waits.
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
    pauses: list[int] = field(default_factory=list)
    """Lengths, ascending, at which prefill stops so that the state can be copied."""
    leader: Running | None = None
    """A sequence that is prefilling a common prefix; this one waits, to share it."""
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
    def num_to_prefill(self) -> int:
        """Number of uncomputed tokens up to the next pause, if there is one."""
        return (self.pauses[0] if self.pauses else self.num_tokens) - self.num_in_cache

    @property
    def num_remaining(self) -> int:
        """Number of tokens that it may still generate."""
        return self.limit - self.num_generated

    @property
    def expected_output(self) -> int:
        """Expected number of tokens still to generate: few sequences use up their limit."""
        return min(self.num_remaining, _MAX_EXPECTED_OUTPUT)

    @property
    def tokens_so_far(self) -> IntArray:
        return self.tokens[: self.num_tokens]

    @property
    def is_scoring(self) -> bool:
        """Whether log-probabilities of the prompt are requested and not complete yet."""
        return self.sequence.num_prompt_logprobs is not None and self.num_generated == 0

    def append(self, token: int) -> None:
        self.tokens[self.num_tokens] = token
        self.num_tokens += 1

    def finish_after(self, *, is_end: bool) -> FinishReason | None:
        """Why the token just appended is the last one; ``None`` if it is not."""
        if is_end:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_remaining == 0 else None


def make_running(
    sequence: Sequence, adapter: str | None, context_length: int, sampler: Sampler
) -> Running:
    """A sequence that has not started."""
    num_prompt = len(sequence.prompt)
    limit = min(sequence.max_tokens, context_length - num_prompt)
    tokens = np.empty(num_prompt + limit, np.int32)
    tokens[:num_prompt] = sequence.prompt
    return Running(sequence, adapter, limit, tokens, num_prompt, sampler)
