"""Wraps llguidance's matcher, which never raises: raises its errors, and limits its time."""

from __future__ import annotations

from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from jobs.contract.errors import GrammarError
from workers.text.step_budget import StepBudget

# The text of a schema is hardly ambiguous, so its parser items are cheap: 400,000 take 25 ms. An
# optional property has 4 in a row; 200 of them have 60,000 in a step (vocabulary of 128,000).
SCHEMA_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=8_000, step_max_items=500_000, verbose_errors=False
)
# Other grammars may be ambiguous; then 20,000 items take 0.2 s.
TEXT_LIMITS = llguidance.LLParserLimits(
    max_items_in_row=2_000, step_max_items=20_000, verbose_errors=False
)
_MAX_REASON = 500  # characters

Mask = npt.NDArray[np.bool_]


class Matcher:
    """A grammar with the parse state of one text.

    Every method raises ``GrammarError`` if the grammar fails (too ambiguous, too large a step, a
    token that is not allowed), and in every later call. ``param`` is the request's field with the
    grammar.
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
        """Mask of the tokens that may come next, (vocab_size,); ``None``: the text has ended."""
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
        raise self.error("no token of this model is allowed at this point")

    def accept(self, token_id: int) -> None:
        """Advance by a token; after the end of the grammar, tokens are ignored."""
        if self._is_over:
            return
        started = self._budget.now()
        self._native.consume_token(token_id)
        self._spend_since(started)
        self._budget.end_step()

    def copy_after(self, token_ids: list[int]) -> Matcher | None:
        """A copy advanced by these tokens; ``None`` if one of them is not allowed.

        llguidance's ``validate_tokens`` is not used, because it has no limits: a hundred letters of
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
        """The error for a text that cannot continue with this grammar."""
        message = "the answer cannot continue with this grammar"
        hint = "it may be too ambiguous or too large"
        return GrammarError(f"{self._param}: {message} ({hint}): {reason}", self._param)

    @property
    def may_end(self) -> bool:
        """Whether the text may end here."""
        self._check()
        return bool(self._native.is_accepting() or self._native.is_stopped())

    @property
    def _is_over(self) -> bool:
        """Whether the text has ended."""
        if not self._native.is_stopped():
            return False
        self._check()  # llguidance also reports "stopped" after an error
        return True

    def _spend_since(self, started: float) -> None:
        self._check()
        self._budget.spend_since(started)
        if self._budget.is_exceeded:
            raise self.error("its steps take too long")

    def _check(self) -> None:
        if self._native.is_error():
            raise self.error(reason_of(self._native))


def reason_of(native: Any) -> str:
    """The first line of the matcher's error message."""
    lines = native.get_error().strip().splitlines()
    return lines[0][:_MAX_REASON] if lines else "no reason is given"
