"""A running sequence (batch row), and drawn tokens read from the device."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass, field
from typing import cast

from jobs.contract.sampling import Sampling
from workers.engines.base import Constraint, FinishReason, Sequence, SequenceFailure, Token
from workers.engines.dry import Repetitions
from workers.engines.failures import failure_of
from workers.engines.mlx.sampling.sampler import Draw, LogprobDraw
from workers.engines.shared.token_key import to_key


@dataclass(eq=False, slots=True)
class Row:
    """A running sequence. ``position`` is the index of the model's next input token.

    So ``tokens[:position]`` are in its KV cache. ``prompt_key`` is the ``token_key`` of what the
    prefill reads: the prompt or, after ``take_back``, all tokens. ``mirostat_mu`` is the ``mu`` of
    the next draw. ``repetitions``: for DRY's penalties. ``number``: in the order of the starts.
    ``has_checkpoint``: the state before its answer's opening is kept (``shared.checkpoint``).
    """

    sequence: Sequence
    max_tokens: int
    repetitions: Repetitions | None = None
    number: int = 0
    tokens: list[int] = field(init=False)
    position: int = field(init=False)
    prompt_key: bytes = field(init=False)
    mirostat_mu: float | None = field(init=False)
    has_checkpoint: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.tokens = list(self.sequence.prompt)
        self.position = len(self.tokens) - 1
        self.prompt_key = to_key(self.tokens)
        self.mirostat_mu = self.sequence.mirostat_mu

    @property
    def sampling(self) -> Sampling:
        return self.sequence.sampling

    @property
    def constraint(self) -> Constraint | None:
        return self.sequence.constraint

    @property
    def needs_last_token(self) -> bool:
        """Whether each token must be read from the device before the next one can be drawn."""
        return self.constraint is not None or self.repetitions is not None

    @property
    def num_generated(self) -> int:
        """Tokens that have been reported."""
        return len(self.tokens) - len(self.sequence.prompt)

    def length_after(self, num_tokens: int) -> int:
        """Length of the sequence after that many more tokens, or at its end."""
        return min(len(self.tokens) + num_tokens, len(self.sequence.prompt) + self.max_tokens)

    def take_back(self) -> None:
        """Note that its state is given up: all of its tokens are to be read again."""
        self.position = len(self.tokens) - 1
        self.prompt_key = to_key(self.tokens)

    @property
    def num_left(self) -> int:
        """Number of tokens still to report."""
        return self.max_tokens - self.num_generated


class DrawnTokens:
    """The tokens of one draw; the constructor waits for the device."""

    def __init__(self, draw: Draw, end_ids: frozenset[int]) -> None:
        self.ids = cast(list[int], draw.tokens.tolist())
        self._logprobs = _Logprobs.read(draw.logprobs)
        self._mus = draw.mus
        self._failures = draw.failures
        self._end_ids = end_ids

    def append_to(self, row: Row, index: int) -> Token | SequenceFailure:
        """Append the token drawn at ``index`` to ``row``; returns it, or the row's failure."""
        try:
            token = self._append_to(row, index)
        except Exception as error:
            return failure_of(row.sequence.sequence_id, error)
        failure = self._failures.get(index)
        return token if failure is None else failure_of(row.sequence.sequence_id, failure)

    def _append_to(self, row: Row, index: int) -> Token:
        token_id = self.ids[index]
        is_end = token_id in self._end_ids
        finish = FinishReason.LENGTH if row.num_left == 1 else None
        if is_end and not row.sampling.ignore_eos:
            finish = FinishReason.STOP
        row.tokens.append(token_id)
        if row.constraint is not None and index not in self._failures:
            row.constraint.accept(token_id)
        logprob, top = self._logprobs.of(index, row)
        mu = self._mus.get(index)
        return Token(row.sequence.sequence_id, token_id, finish, is_end, logprob, top, mu)


def is_last(event: Token | SequenceFailure) -> bool:
    """Whether the row ends with this event."""
    return isinstance(event, SequenceFailure) or event.finish is not None


@dataclass(frozen=True, slots=True)
class _Logprobs:
    """Log-probabilities of one step, read from the device."""

    slots: dict[int, int]
    chosen: ListLike[float] = ()
    top_ids: ListLike[ListLike[int]] = ()
    top_logprobs: ListLike[ListLike[float]] = ()

    @staticmethod
    def read(draw: LogprobDraw | None) -> _Logprobs:
        if draw is None:
            return _Logprobs({})
        chosen = cast(list[float], draw.chosen.tolist())
        top_ids = cast(list[list[int]], draw.top_ids.tolist())
        top_logprobs = cast(list[list[float]], draw.top_logprobs.tolist())
        return _Logprobs(draw.slots, chosen, top_ids, top_logprobs)

    def of(self, index: int, row: Row) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        """The drawn token's log-probability and the likeliest tokens, as the row requested."""
        slot = self.slots.get(index)
        if slot is None:
            return None, ()
        num_top = row.sampling.num_logprobs or 0
        pairs = zip(self.top_ids[slot], self.top_logprobs[slot], strict=True)
        return self.chosen[slot], tuple(pairs)[:num_top]
