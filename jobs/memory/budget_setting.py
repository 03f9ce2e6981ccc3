"""The setting ``MGS_MEMORY_BUDGET``: bytes, ``12GB``, ``12GiB``, or ``80%``; ``0``: no limit."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kmgt]i?b?|b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class BudgetSetting:
    """Bytes, or a share (0.8 for ``80%``) of what the rule would start from."""

    num_bytes: int | None = None
    share: float | None = None


def parse_budget(text: str) -> BudgetSetting | None:
    """The setting; ``None`` for an empty text: the rule. Raises ``ValueError`` for another one."""
    if not text.strip():
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r}: give bytes, a size such as 12GB, or a share such as 80%")
    number, unit = float(match[1]), (match[2] or "b").lower()
    if unit == "%":
        if not 0 < number <= 100:
            raise ValueError(f"{text!r}: a share is more than 0 and at most 100 %")
        return BudgetSetting(share=number / 100)
    base = 1024 if "i" in unit else 1000
    return BudgetSetting(num_bytes=int(number * base ** _POWERS.get(unit[0], 0)))
