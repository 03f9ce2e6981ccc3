"""Filters of chat templates: Jinja's, with limits, and with the origin of their text."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Environment
from jinja2.exceptions import FilterArgumentError, SecurityError
from jinja2.filters import make_attrgetter
from jinja2.utils import pass_environment

from workers.text.templates import input_text
from workers.text.templates.input_text import InputText
from workers.text.templates.limits import (
    check_format,
    check_length,
    check_numbers,
    check_size,
    check_time,
    to_text,
)

_MAX_DIGITS = 300  # for ``round``
_MAX_INDENT = 16
# Refused when called: they build texts of any length, or are useless in a chat.
_REMOVED = (
    "batch", "center", "filesizeformat", "forceescape", "pprint", "random", "slice", "striptags",
    "urlencode", "urlize", "wordwrap", "xmlattr",
)  # fmt: skip
# These convert their argument to text.
_TEXT_FILTERS = (
    "capitalize", "e", "escape", "lower", "safe", "string", "title", "trim", "truncate", "upper",
    "wordcount",
)  # fmt: skip

Filter = Callable[..., Any]


def chat_filters(theirs: dict[str, Filter]) -> dict[str, Filter]:
    """The filters of chat templates, from Jinja's filters ``theirs``."""
    filters = dict(theirs) | {name: _refused(name) for name in _REMOVED}
    filters |= {"tojson": _to_json, "join": _join, "replace": _replace, "indent": _indent}
    filters["format"] = _format
    filters["round"] = _bounded_round(filters["round"])
    for name in _TEXT_FILTERS:
        filters[name] = _text_filter(filters[name])
    for name in ("e", "escape", "safe", "title"):
        filters[name] = _in_place(filters[name])
    return {name: _limited(one) for name, one in filters.items()}


def _refused(name: str) -> Filter:
    """Fails when called, so that a template that rarely uses it can be loaded."""

    def refused(*_args: Any, **_kwargs: Any) -> None:
        raise SecurityError(f"it uses the filter {name!r}, which is not supported")

    return refused


def _limited(function: Filter) -> Filter:
    @functools.wraps(function)  # also copies the attributes that ``pass_context`` sets
    def limited(*args: Any, **kwargs: Any) -> Any:
        check_time()
        result = function(*args, **kwargs)
        if isinstance(result, str) and type(result) is not InputText:
            check_length(len(result))
            if InputText in map(type, args):
                return InputText(result)
        return result

    return limited


def _text_filter(function: Filter) -> Filter:
    index = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def text_filter(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:index], to_text(args[index]), *args[index + 1 :], **kwargs)

    return text_filter


def _in_place(function: Filter) -> Filter:
    def in_place(value: Any) -> str:
        text = to_text(value)
        return input_text.in_place_of(text, function(text))

    return in_place


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
    if type(text) is InputText and text.is_whole:  # the indent may count as input
        return InputText(_indented(str.__str__(text), space, first, blank))
    return _indented(text, space, first, blank)


def _indented(text: str, space: str, first: bool, blank: bool) -> str:
    lines = (text + "\n").splitlines()
    rest = [space + line if line or blank else line for line in lines[1:]]
    return joined("\n", [(space if first else "") + lines[0], *rest])


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise FilterArgumentError("it formats with both positional and keyword arguments")
    text = to_text(value)
    check_format(text, kwargs or args)
    return input_text.percent(text, kwargs or args)


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
    origins = check_size(value)
    # If all strings are input, the whole text may count as input.
    if origins.has_input and origins.has_own and not ensure_ascii:
        return _followed_json(value, indent, separators, sort_keys)
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    return InputText(text) if origins.has_input else text


def _followed_json(
    value: Any,
    indent: int | None,
    separators: tuple[str, str] | None,
    sort_keys: bool,
) -> str:
    """As ``json.dumps`` with ``ensure_ascii=False``; strings keep their origin."""
    item, colon = separators or (", " if indent is None else ",", ": ")
    return input_text.concat(
        _pieces(value, "" if indent is None else "\n", indent, item, colon, sort_keys)
    )


def _pieces(
    value: Any, line: str, indent: int | None, item: str, colon: str, sort_keys: bool
) -> Iterator[str]:
    if _is_input(value):  # then the whole text may count as input
        yield InputText(_plain_json(value, indent, item, colon, sort_keys).replace("\n", line))
        return
    if isinstance(value, InputText):
        text = json.dumps(value, ensure_ascii=False)
        yield '"' + value + '"' if text == f'"{value}"' else InputText(text)
        return
    if not isinstance(value, dict | list | tuple) or not value:
        yield json.dumps(value, ensure_ascii=False)
        return
    inner = line + " " * (indent or 0)
    is_object = isinstance(value, dict)
    yield "{" if is_object else "["
    pairs = value.items() if isinstance(value, dict) else ((None, one) for one in value)
    for number, (key, one) in enumerate(sorted(pairs) if is_object and sort_keys else pairs):
        yield (item if number else "") + inner
        if is_object:
            text = json.dumps(str.__str__(key) if isinstance(key, str) else key, ensure_ascii=False)
            text = text if isinstance(key, str) else f'"{text}"'
            yield (InputText(text) if isinstance(key, InputText) else text)
            yield colon
        yield from _pieces(one, inner, indent, item, colon, sort_keys)
    yield line + ("}" if is_object else "]")


def _plain_json(value: Any, indent: int | None, item: str, colon: str, sort_keys: bool) -> str:
    separators = (item, colon)
    return json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _is_input(value: Any) -> bool:
    """Whether no string in ``value``, nor a part of one, is from the template."""
    if isinstance(value, dict):
        return all(map(_is_input, value)) and all(map(_is_input, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_input, value))
    return not isinstance(value, str) or (type(value) is InputText and value.is_whole)
