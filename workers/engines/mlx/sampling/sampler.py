"""From logits to tokens, one vectorised pass for all rows of a batch.

Order and meaning are those of ``jobs/contract/sampling.py``. All is computed on the device from
lazy arrays, the token of the step before included: nothing here waits for a value (but for
mirostat and, on a CPU, ``host_filters``), so that the next step can be scheduled while this one
still runs. DRY and grammars need the token of the step before.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from jobs.contract.sampling import Sampling, draw_seed
from workers.engines.base import Constraint
from workers.engines.dry import Repetitions
from workers.engines.mlx.sampling.chain import Chain, Parameters, choose_of, is_drawing
from workers.engines.mlx.sampling.constrained_rows import ConstrainedRows, Failures
from workers.engines.mlx.sampling.filters import column
from workers.engines.mlx.sampling.mirostat_rows import MirostatRows
from workers.engines.mlx.sampling.penalties import Penalties, bias_of, count_tokens, subtract_dry

_MORE_THAN_ALL = 2.0  # no probability is


class SampledRow(Protocol):
    """What the sampler reads of a running sequence, and the state of its draws."""

    mirostat_mu: float | None

    @property
    def repetitions(self) -> Repetitions | None:
        """Those that DRY disfavours; ``None`` without it."""
        ...

    @property
    def sampling(self) -> Sampling: ...

    @property
    def tokens(self) -> ListLike[int]:
        """Prompt and generated tokens, at least those before ``position``."""
        ...

    @property
    def position(self) -> int:
        """Index in the sequence of the token that the model reads in this step."""
        ...

    @property
    def constraint(self) -> Constraint | None:
        """The grammar that the token drawn has to follow."""
        ...


@dataclass(frozen=True, slots=True)
class LogprobDraw:
    """Log-probabilities of those who asked: ``slots[i]`` is row i's index in the arrays."""

    slots: dict[int, int]
    chosen: mx.array  # (asking rows,)
    top_ids: mx.array  # (asking rows, most asked for), most likely first
    top_logprobs: mx.array


@dataclass(frozen=True, slots=True)
class Draw:
    """The tokens drawn in one step, lazy: (rows,) uint32; ``mus`` by row, of mirostat's rows.

    The token of a row in ``failures`` is none. ``has_waited``: the logits have been computed.
    """

    tokens: mx.array
    logprobs: LogprobDraw | None
    mus: dict[int, float] = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)
    has_waited: bool = False

    def arrays(self) -> list[mx.array]:
        """Everything to be computed."""
        found = self.logprobs
        return [self.tokens] if found is None else [self.tokens, *_arrays_of(found)]


def _arrays_of(logprobs: LogprobDraw) -> list[mx.array]:
    return [logprobs.chosen, logprobs.top_ids, logprobs.top_logprobs]


class BatchSampler:
    """Draws for a fixed list of rows; made anew when the batch changes."""

    def __init__(self, rows: ListLike[SampledRow], end_ids: frozenset[int]) -> None:
        self._rows = rows
        samplings = [row.sampling for row in rows]
        self._bias = bias_of(samplings, end_ids)
        self._penalties = Penalties.of(samplings)
        self._constrained = ConstrainedRows(rows)
        self._mirostat = MirostatRows(rows)
        # Rows of mirostat count as greedy here: their tokens are replaced.
        self._is_greedy = [not is_drawing(sampling) for sampling in samplings]
        self._are_greedy = mx.array(self._is_greedy)
        self._chain, self._filters, self._temperatures = Chain.of(samplings)
        is_on_gpu = mx.default_device().type == mx.DeviceType.gpu
        self._choose_among = choose_of(self._chain, is_compiled=is_on_gpu)
        self._num_logprobs = {i: s.num_logprobs for i, s in enumerate(samplings)}

    def draw(self, logits: mx.array, inputs: mx.array) -> Draw:
        """The next token of each row.

        ``logits`` is (rows, vocab); ``inputs`` (rows,) are the tokens that the model has just
        read, each the one at its row's ``position``.
        """
        raw = logits.astype(mx.float32)
        failures: Failures = {}
        biased = self.disfavour(raw, inputs, failures)
        biased = self._constrained.mask(biased, failures)
        tokens, mus = self._mirostat.draw(biased, self._choose(biased), failures)
        has_waited = self._chain.waits or bool(mus)
        return Draw(tokens, self._logprobs(raw, tokens), mus, failures, has_waited)

    def disfavour(self, raw: mx.array, inputs: mx.array, failures: Failures) -> mx.array:
        """``raw`` (rows, vocab) after bias, penalties and DRY; adds to ``failures``."""
        biased = raw if self._bias is None else self._bias.add_to(raw)
        if self._penalties is not None:
            biased = self._penalties.apply(biased, count_tokens(self._rows, inputs, raw.shape[-1]))
        return subtract_dry(biased, self._rows, failures)

    def _choose(self, logits: mx.array) -> mx.array:
        if all(self._is_greedy):
            return mx.argmax(logits, axis=-1)
        return self._choose_among(logits, self._keys(), self._are_greedy, self._parameters())

    def final(self, logits: mx.array) -> mx.array:
        """``logits`` (rows, vocab) after filters, XTC and temperature, as the draw uses them."""
        return self._chain.final(logits, self._parameters())

    def _parameters(self) -> Parameters:
        thresholds = [self._xtc_threshold(i) for i in range(len(self._rows))]
        xtc = [column(thresholds)] if min(thresholds) < _MORE_THAN_ALL else []
        return self._filters, xtc, self._temperatures

    def _xtc_threshold(self, index: int) -> float:
        """The row's threshold if XTC acts at its position, else one above all probabilities."""
        row = self._rows[index]
        is_due = not self._is_greedy[index] and row.sampling.has_xtc_at(row.position + 1)
        return row.sampling.xtc_threshold if is_due else _MORE_THAN_ALL

    def _keys(self) -> mx.array:
        """One random key per row, (rows, 2): ``mx.random.key(seed)`` is the words (0, seed)."""
        seeds = [draw_seed(row.sampling.seed, row.position + 1) for row in self._rows]
        return mx.array([[0, seed] for seed in seeds], dtype=mx.uint32)

    def _logprobs(self, raw: mx.array, tokens: mx.array) -> LogprobDraw | None:
        asking = [i for i, num in self._num_logprobs.items() if num is not None]
        if not asking:
            return None
        rows = mx.array(asking)
        logits = raw[rows]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        chosen = mx.take_along_axis(logprobs, tokens[rows][:, None], axis=-1)[:, 0]
        num_top = max(self._num_logprobs[i] or 0 for i in asking)
        top_ids = most_likely(logprobs, num_top)
        top = mx.take_along_axis(logprobs, top_ids, axis=-1)
        return LogprobDraw({row: slot for slot, row in enumerate(asking)}, chosen, top_ids, top)


def most_likely(logprobs: mx.array, num_top: int) -> mx.array:
    """Ids of the ``num_top`` most likely tokens, (rows, num_top), most likely first."""
    # A partition first: on a CPU, sorting 150,000 logits takes 13 ms a row, this 1.3 ms.
    last = min(num_top, logprobs.shape[-1] - 1)
    ids = mx.argpartition(-logprobs, last, axis=-1)[:, :num_top]
    order = mx.argsort(-mx.take_along_axis(logprobs, ids, axis=-1), axis=-1)
    return mx.take_along_axis(ids, order, axis=-1)
