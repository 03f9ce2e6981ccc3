"""Filters of chat templates: Jinja's, with limits, and with the origin of their text."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from jinja2 import Environment
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.utils import pass_environment

from workers.text import input_text
from workers.text.input_text import InputText
from workers.text.template_limits import (
    check_length,
    check_numbers,
    check_size,
    check_time,
    to_text,
)

_MAX_DIGITS = 300  # for ``round``
_MAX_INDENT = 16
# Removed: they build texts of any length, or are useless in a chat.
_REMOVED = (
    "batch", "center", "filesizeformat", "format", "forceescape", "pprint", "random", "slice",
    "striptags", "urlencode", "urlize", "wordwrap", "xmlattr",
)  # fmt: skip
# These convert their argument to text.
_TEXT_FILTERS = (
    "capitalize", "e", "escape", "lower", "safe", "string", "title", "trim", "truncate", "upper",
    "wordcount",
)  # fmt: skip

Filter = Callable[..., Any]


def chat_filters(theirs: dict[str, Filter]) -> dict[str, Filter]:
    """The filters of chat templates, from Jinja's filters ``theirs``."""
    filters = {name: one for name, one in theirs.items() if name not in _REMOVED}
    filters |= {"tojson": _to_json, "join": _join, "replace": _replace, "indent": _indent}
    filters["round"] = _bounded_round(filters["round"])
    for name in _TEXT_FILTERS:
        filters[name] = _text_filter(filters[name])
    return {name: _limited(one) for name, one in filters.items()}


def _limited(function: Filter) -> Filter:
    @functools.wraps(function)  # also copies the attributes that ``pass_context`` sets
    def limited(*args: Any, **kwargs: Any) -> Any:
        check_time()
        result = function(*args, **kwargs)
        if isinstance(result, str) and type(result) is not InputText:
            check_length(len(result))
            if any(type(value) is InputText for value in args):
                return InputText(result)
        return result

    return limited


def _text_filter(function: Filter) -> Filter:
    index = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def text_filter(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:index], to_text(args[index]), *args[index + 1 :], **kwargs)

    return text_filter


@pass_environment
def _join(
    environment: Environment, value: Any, d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return joined(d, value)


def joined(separator: str, parts: Any) -> str:
    """``separator.join(parts)``."""
    texts = list(map(to_text, parts))
    check_length(sum(map(len, texts)) + len(texts) * len(separator))
    return input_text.join(to_text(separator), texts)


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    return replaced(to_text(s), old, new, -1 if count is None else count)


def replaced(text: str, old: Any, new: Any, count: int = -1) -> str:
    """``text.replace(old, new, count)``."""
    old, new = to_text(old), to_text(new)
    check_length(len(text) + text.count(old) * len(new))
    return input_text.replace(text, old, new, count)


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = to_text(s)
    check_numbers(width)
    space = width if isinstance(width, str) else " " * width
    check_length(len(text) + (text.count("\n") + 1) * len(space))
    lines = (text + "\n").splitlines()
    rest = [space + line if line or blank else line for line in lines[1:]]
    return joined("\n", [(space if first else "") + lines[0], *rest])


def _bounded_round(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(value: Any, precision: int = 0, *args: Any, **kwargs: Any) -> Any:
        if abs(precision) > _MAX_DIGITS:
            raise SecurityError("it rounds to too many digits")
        return function(value, precision, *args, **kwargs)

    return bounded


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    indent = indent if indent is None else min(indent, _MAX_INDENT)
    has_input = check_size(value)
    if has_input and not ensure_ascii:
        return input_text.to_json(value, indent, separators, sort_keys)
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    return InputText(text) if has_input else text
