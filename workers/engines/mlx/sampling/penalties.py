"""Bias, penalties and DRY of the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np

from jobs.contract.sampling import Sampling
from workers.engines.dry import Repetitions
from workers.engines.mlx.sampling.constrained_rows import Failures
from workers.engines.mlx.sampling.filters import DROPPED, column


class PenalisedRow(Protocol):
    """What is read of a running sequence."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def tokens(self) -> ListLike[int]: ...

    @property
    def position(self) -> int: ...

    @property
    def repetitions(self) -> Repetitions | None: ...


@dataclass(frozen=True, slots=True)
class Additions:
    """Sparse additions to the logits: ``value[i]`` at ``[row[i], token[i]]``."""

    row: mx.array
    token: mx.array
    value: mx.array

    @staticmethod
    def of(found: dict[int, dict[int, float]]) -> Additions | None:
        """From values by row and token; ``None`` if there are none."""
        entries = [
            (row, token, value) for row, values in found.items() for token, value in values.items()
        ]
        if not entries:
            return None
        rows, tokens, values = zip(*entries, strict=True)
        return Additions(mx.array(rows), mx.array(tokens), mx.array(values, dtype=mx.float32))

    def add_to(self, logits: mx.array) -> mx.array:
        return logits.at[self.row, self.token].add(self.value)


def bias_of(samplings: ListLike[Sampling], end_ids: frozenset[int]) -> Additions | None:
    """The rows' ``logit_bias``; end tokens are impossible in rows that ignore them."""
    banned = dict.fromkeys(end_ids, DROPPED)
    return Additions.of(
        {i: s.logit_bias | (banned if s.ignore_eos else {}) for i, s in enumerate(samplings)}
    )


@dataclass(frozen=True, slots=True)
class Penalties:
    """Repetition, presence and frequency penalties of the rows, (rows, 1) each."""

    repetition: mx.array
    presence: mx.array
    frequency: mx.array

    @staticmethod
    def of(samplings: list[Sampling]) -> Penalties | None:
        """The penalties, or ``None`` when no row has any."""
        if not any(s.has_penalties for s in samplings):
            return None
        return Penalties(
            column([s.repetition_penalty for s in samplings]),
            column([s.presence_penalty for s in samplings]),
            column([s.frequency_penalty for s in samplings]),
        )

    def apply(self, logits: mx.array, counts: mx.array) -> mx.array:
        """``counts`` (rows, vocab): how often each token stands in the row's window."""
        is_seen = counts > 0.0
        damped = mx.where(logits > 0.0, logits / self.repetition, logits * self.repetition)
        penalty = counts * self.frequency + self.presence
        return mx.where(is_seen, damped - penalty, logits)


def count_tokens(rows: ListLike[PenalisedRow], inputs: mx.array, vocab_size: int) -> mx.array:
    """Occurrences of each token in each row's window, (rows, vocab); 0 without penalties.

    The newest token of the window is ``inputs``, still on the device; the others are known here.
    """
    windows = [_known_window(row) for row in rows]
    width = max(len(window) for window in windows)
    known = np.zeros((len(rows), width), dtype=np.uint32)
    weights = np.zeros((len(rows), width + 1), dtype=np.float32)
    for i, (row, window) in enumerate(zip(rows, windows, strict=True)):
        known[i, : len(window)] = window
        weights[i, : len(window)] = 1.0
        weights[i, width] = float(row.sampling.has_penalties)
    tokens = mx.concatenate([mx.array(known), inputs[:, None].astype(mx.uint32)], axis=1)
    empty = mx.zeros((len(rows), vocab_size))
    return empty.at[mx.arange(len(rows))[:, None], tokens].add(mx.array(weights))


def _known_window(row: PenalisedRow) -> ListLike[int]:
    """The window's tokens before ``position``; none for a row without penalties."""
    if not row.sampling.has_penalties:
        return []
    first = max(0, row.position + 1 - row.sampling.repetition_context_size)
    return row.tokens[first : row.position]


def subtract_dry(logits: mx.array, rows: ListLike[PenalisedRow], failures: Failures) -> mx.array:
    """``logits`` (rows, vocab) less DRY's penalties; adds to ``failures``.

    The penalties are computed on the host and need all tokens, so the tokens of the previous step
    are read before this draw is scheduled (``Row.needs_last_token``), as with a grammar.
    """
    found = {}
    for index, row in enumerate(rows):
        if row.repetitions is None:
            continue
        try:
            penalties = row.repetitions.penalties(row.tokens)
        except Exception as error:  # the row's own: the others get their tokens
            failures[index] = error
        else:
            found[index] = {token: -penalty for token, penalty in penalties.items()}
    additions = Additions.of(found)
    return logits if additions is None else additions.add_to(logits)
