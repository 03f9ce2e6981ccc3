"""Limits for chat templates: the size of values and the time of a render."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError

from workers.text.templates.input_text import InputText

MAX_SIZE = 1 << 22  # characters (and list elements) of any value
_MAX_NUMBER = 1 << 20  # value of a width or of the base of a power
_MAX_BITS = 1024  # size of a product of numbers
_MAX_POWER = 64
_STEPS_PER_CHECK = 64
_WIDE_FIELD = re.compile(r"\d{4}|\*")


class _TimeLimit:
    """The CPU time that a render may still take on its thread.

    CPU time is never more than elapsed time, but reading it is slower (3 us against 0.1 us on a
    virtual machine). So it is read only after the limit has elapsed.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.thread_time() + seconds
        self._next_check = time.perf_counter() + seconds
        self._num_steps = 0

    def check(self) -> None:
        self._num_steps += 1
        if self._num_steps % _STEPS_PER_CHECK == 0 and time.perf_counter() > self._next_check:
            left = self._end - time.thread_time()
            if left < 0:
                raise SecurityError("it takes too long to render")
            self._next_check = time.perf_counter() + left


_time_limit: ContextVar[_TimeLimit | None] = ContextVar("template_time_limit", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Inside this context, a render raises ``SecurityError`` after ``seconds`` of CPU time."""
    token = _time_limit.set(_TimeLimit(seconds))
    try:
        yield
    finally:
        _time_limit.reset(token)


def check_time() -> None:
    """Call it in each step of a render: raises ``SecurityError`` if its time is over."""
    limit = _time_limit.get()
    if limit is not None:
        limit.check()


class Origins(NamedTuple):
    """Whether a value contains strings of the request, and strings of the template."""

    has_input: bool
    has_own: bool


def check_size(*values: Any) -> Origins:
    """The origins of the strings in ``values``. Raises ``SecurityError`` if their text is too long.

    A string that is referenced several times counts each time, because its text is repeated.
    """
    size, has_input, has_own, open_values = 0, False, False, list(values)
    while open_values:
        value = open_values.pop()
        if isinstance(value, str | bytes | list | tuple | dict):
            size += len(value) + 2
            if type(value) is InputText:
                has_input, has_own = True, has_own or not value.is_whole
            elif isinstance(value, str):
                has_own = True
        else:
            size += 8
        if size > MAX_SIZE:
            raise SecurityError(f"it builds a value of more than {MAX_SIZE} characters")
        if isinstance(value, list | tuple):
            open_values.extend(value)
        elif isinstance(value, dict):
            open_values.extend(value.keys())
            open_values.extend(value.values())
    return Origins(has_input, has_own)


def check_length(length: int) -> None:
    """Raise ``SecurityError`` for a value that would be longer than ``MAX_SIZE``."""
    if length > MAX_SIZE:
        raise SecurityError(f"it builds a value of more than {MAX_SIZE} characters")


def to_text(value: Any) -> str:
    """The text that a template writes for a value. Raises ``SecurityError`` if it is too long."""
    if isinstance(value, str):
        check_length(len(value))
        return value
    if isinstance(value, list | tuple | dict):
        return InputText(value) if check_size(value).has_input else str(value)
    return str(value)


def check_numbers(*values: Any) -> None:
    """Raise ``SecurityError`` for a width or a count above the limit."""
    if any(isinstance(value, int) and abs(value) > _MAX_NUMBER for value in values):
        raise SecurityError(f"it passes a number above {_MAX_NUMBER}")


def check_format(form: str, values: Any) -> None:
    """Raise ``SecurityError`` if the formatted text may be too long."""
    if _WIDE_FIELD.search(form):
        raise SecurityError("it formats with a wide field")
    num_fields = form.count("%") + form.count("{")
    check_size(form, *([values] * min(num_fields, MAX_SIZE)))


def check_binop(operator: str, left: Any, right: Any) -> None:
    """Raise ``SecurityError`` if the result would be too large."""
    if operator == "**":
        _check_power(left, right)
    elif operator == "%" and isinstance(left, str):
        check_format(left, right)
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        check_length(len(left) + len(right))
    elif operator == "*":
        _check_product(left, right)


def _check_power(base: Any, exponent: Any) -> None:
    if abs(base) > _MAX_NUMBER or abs(exponent) > _MAX_POWER:
        raise SecurityError("it raises to a large power")


def _check_product(left: Any, right: Any) -> None:
    numbers = [value for value in (left, right) if isinstance(value, int)]
    if sum(number.bit_length() for number in numbers) > _MAX_BITS:
        raise SecurityError("it multiplies large numbers")
    texts = [value for value in (left, right) if hasattr(value, "__len__")]
    if texts and numbers:
        check_length(len(texts[0]) * numbers[0])
