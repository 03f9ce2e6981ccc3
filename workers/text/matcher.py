"""llguidance's matcher, which never raises: here its errors are raised, and its time is bounded."""

from __future__ import annotations

from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from jobs.contract.errors import GrammarError
from workers.text.step_budget import StepBudget

# A schema's text can be read in few ways, so its items are cheap: 400,000 in 25 ms. Each optional
# property has 4 in a row; with a vocabulary of 128,000, 200 of them have 60,000 in a step.
SCHEMA_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=8_000, step_max_items=500_000, verbose_errors=False
)
# Other grammars may be ambiguous, and then 20,000 items take 0.2 s.
TEXT_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=2_000, step_max_items=20_000, verbose_errors=False
)
_LONGEST_REASON = 500  # characters

Mask = npt.NDArray[np.bool_]


class Matcher:
    """Where one text stands in a grammar.

    Every method raises ``GrammarError`` when the grammar breaks down there (too many ways to read
    the text, too large a step, a token that it forbids), and from then on. ``param`` is the
    request's field with the grammar.
    """

    def __init__(
        self, native: Any, param: str, vocab_size: int, budget: StepBudget | None = None
    ) -> None:
        self._native = native
        self._param = param
        self._vocab_size = vocab_size
        self._budget = budget or StepBudget()
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocab_size)

    def mask(self) -> Mask | None:
        """Which tokens may come next, shape (vocab_size,); ``None``: the text is complete."""
        if self._is_over:
            return None
        started = self._budget.now()
        llguidance.numpy.fill_next_token_bitmask(self._native, self._bits, 0)
        self._spend_since(started)
        bits = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")
        mask = bits[: self._vocab_size].astype(np.bool_)
        if mask.any():
            return mask
        if self.may_end:
            return None
        raise self.error("this model has no token that the grammar allows here")

    def accept(self, token_id: int) -> None:
        """Go on after a token; after the grammar's end any will do."""
        if self._is_over:
            return
        started = self._budget.now()
        self._native.consume_token(token_id)
        self._spend_since(started)
        self._budget.end_step()

    def follow(self, token_ids: list[int]) -> Matcher | None:
        """Another one, after these tokens; ``None`` if the grammar forbids one of them.

        ``validate_tokens`` of llguidance would tell too, but knows no limits: a hundred letters of
        an ambiguous grammar take it minutes.
        """
        after = Matcher(self._native.deep_copy(), self._param, self._vocab_size, self._budget)
        for token_id in token_ids:
            mask = after.mask()
            if mask is None or not mask[token_id]:
                return None
            after.accept(token_id)
        return after

    def error(self, reason: str) -> GrammarError:
        """That the text cannot go on in this grammar."""
        message = "the answer cannot follow this grammar any further"
        hint = "it may be too ambiguous or too large"
        return GrammarError(f"{self._param}: {message} ({hint}): {reason}", self._param)

    @property
    def may_end(self) -> bool:
        """Whether the text may end here."""
        self._check()
        return bool(self._native.is_accepting() or self._native.is_stopped())

    @property
    def _is_over(self) -> bool:
        """Whether nothing may follow."""
        if not self._native.is_stopped():
            return False
        self._check()  # a matcher in its error state counts as stopped
        return True

    def _spend_since(self, started: float) -> None:
        self._check()
        self._budget.spend_since(started)
        if self._budget.is_spent:
            raise self.error("its steps take too long")

    def _check(self) -> None:
        if self._native.is_error():
            raise self.error(reason_of(self._native))


def reason_of(native: Any) -> str:
    """What llguidance says of a matcher's error, in one line."""
    lines = native.get_error().strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else "no reason is given"
