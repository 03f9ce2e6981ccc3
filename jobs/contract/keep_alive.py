"""ollama's ``keep_alive``: how long a model stays loaded after its last request."""

from __future__ import annotations

import math
import re
from typing import Any

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DIGITS = r"(\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"  # bounded: unbounded ones take squared time
_PART = re.compile(rf"{_DIGITS}(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")
_NUMBER = re.compile(rf"[+-]?{_DIGITS}")
_FORMS = "seconds, or a duration as 5m, 1h30m or -1"


def parse_keep_alive(value: Any) -> float | None:
    """Seconds after the last request; negative: for ever, 0: no longer than requests need it.

    The forms are a number of seconds, also as a text, and Go's durations ("5m", "1h30m", "-1s").
    ``None`` and "" say nothing: ``None``. Raises ``ValueError`` for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(_FORMS)
    return _finite(value)


def _of_text(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return _finite(float(text))
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(_FORMS)
    total = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(found[2]))
    return _finite(-total if found[1] == "-" else total)


def _finite(seconds: float) -> float:
    try:
        number = float(seconds)
    except OverflowError:
        raise ValueError(_FORMS) from None
    if not math.isfinite(number):
        raise ValueError(_FORMS)
    return number
