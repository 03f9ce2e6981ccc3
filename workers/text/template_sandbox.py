"""A Jinja environment for templates that nobody has read: bounded in time, size and reach.

Jinja's sandbox keeps a template away from Python's inner parts, but not from a loop of loops or
from a string that doubles itself. Chat templates come out of downloaded files (CVE-2024-34359), so
here every loop round, call, filter and concatenation is checked against limits. What no chat
template needs and could allocate without bound is taken out.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context

MAX_SIZE = 1 << 22  # characters (and list elements) of any value: four bodies of a megabyte
MAX_NUMBER = 1 << 20  # of an argument, such as a width or a count
MAX_BITS = 1024  # of a product of numbers
MAX_POWER = 64

_UNBOUNDED_FILTERS = (
    "batch", "center", "filesizeformat", "format", "forceescape", "pprint", "random", "slice",
    "striptags", "urlencode", "urlize", "wordwrap", "xmlattr",
)  # fmt: skip
_UNBOUNDED_METHODS = frozenset({"center", "expandtabs", "format_map", "ljust", "rjust", "zfill"})
_WIDE_FIELD = re.compile(r"\d{4}|\*")

_deadline: ContextVar[float] = ContextVar("template_deadline", default=float("inf"))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Rendering inside this block fails with ``SecurityError`` after ``seconds``."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise ``SecurityError`` when the deadline of the running render has passed."""
    if time.monotonic() > _deadline.get():
        raise SecurityError("it takes too long to render")


def bounded(value: Any) -> Any:
    """``value`` itself, if its text would not be longer than ``MAX_SIZE``."""
    check_size(value)
    return value


def check_size(*values: Any) -> None:
    """Raise ``SecurityError`` when the texts of all ``values`` together exceed ``MAX_SIZE``.

    A list of references to one long string counts it each time, as its text would.
    """
    size, open_values = 0, list(values)
    while open_values:
        value = open_values.pop()
        size += len(value) if isinstance(value, str | bytes | list | tuple | Mapping) else 1
        if size > MAX_SIZE:
            raise SecurityError(f"it builds a value of more than {MAX_SIZE} characters")
        if isinstance(value, list | tuple):
            open_values.extend(value)
        elif isinstance(value, Mapping):
            open_values.extend(value.keys())
            open_values.extend(value.values())


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates, with limits.

    Same as there: trimmed blocks, loop controls, ``raise_exception``, ``strftime_now``, a
    ``tojson`` that escapes nothing, and the ``generation`` tag (which marks text for training).
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=bounded,
        )
        self.filters["tojson"] = _to_json
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters = {name: _limited(name, one) for name, one in self.filters.items()}
        self.filters[_TICK] = _tick
        self.filters[_BOUNDED] = bounded
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _instrument(tree)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """See jinja2; leaves out the string methods that pad to any width."""
        if isinstance(obj, str) and attr in _UNBOUNDED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """See jinja2; ``str.format`` with its arguments checked first."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, (*args, *kwargs.values()))
            return wrapped(*args, **kwargs)

        return limited

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """See jinja2; every call of a template comes through here."""
        check_time()
        _check_arguments(args, kwargs)
        _check_method(__obj, args)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See jinja2; checks what the operation would build before it is built."""
        check_time()
        _check_binop(operator, left, right)
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_TICK = "_tick"
_BOUNDED = "_bounded"


def _instrument(tree: nodes.Template) -> None:
    """Make each round of a loop and each run of a macro look at the clock; bound each ``~``."""
    repeated: tuple[type[nodes.Node], ...] = (nodes.For, nodes.Macro, nodes.CallBlock)
    for block in tree.find_all(repeated):
        assert isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock)
        tick = nodes.ExprStmt(_filter(nodes.Const(None), _TICK))
        tick.set_lineno(block.lineno)
        block.body.insert(0, tick)
    for concat in tree.find_all(nodes.Concat):
        concat.nodes = [_filter(node, _BOUNDED) for node in concat.nodes]


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    wrapped = nodes.Filter(node, name, [], [], None, None)
    wrapped.set_lineno(node.lineno or 1)
    return wrapped


@pass_context
def _tick(_context: Context, _value: object) -> None:
    # Asking for the context keeps Jinja from running this once, when it compiles.
    check_time()


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # with it the marks of filters that want the context
    def limited(*args: Any, **kwargs: Any) -> Any:
        check_time()
        _check_arguments(args, kwargs)
        values = (*args, *kwargs.values())
        if name == "replace" and len(values) >= 4:  # evaluation context, text, old, new
            _check_replace(*(str(one) for one in values[1:4]))
        if name == "join" and len(values) >= 3:  # evaluation context, parts, separator
            _check_join(str(values[2]), values[1])
        return function(*args, **kwargs)

    return limited


def _check_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    values = (*args, *kwargs.values())
    check_size(*values)
    if any(isinstance(value, int) and abs(value) > MAX_NUMBER for value in values):
        raise SecurityError(f"it passes a number above {MAX_NUMBER}")


def _check_method(method: Any, args: tuple[Any, ...]) -> None:
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(owner, str):
        return
    if name == "replace" and len(args) >= 2:
        _check_replace(owner, str(args[0]), str(args[1]))
    elif name == "join" and args:
        _check_join(owner, args[0])


def _check_replace(text: str, old: str, new: str) -> None:
    if len(text) + text.count(old) * len(new) > MAX_SIZE:
        raise SecurityError(f"it builds a text of more than {MAX_SIZE} characters")


def _check_join(separator: str, parts: Any) -> None:
    num_parts = len(parts) if hasattr(parts, "__len__") else 0
    if num_parts * len(separator) > MAX_SIZE:
        raise SecurityError(f"it builds a text of more than {MAX_SIZE} characters")


def _check_format(form: str, values: Any) -> None:
    if _WIDE_FIELD.search(form):
        raise SecurityError("it formats with a wide field")
    num_fields = form.count("%") + form.count("{")
    check_size(form, *([values] * min(num_fields, MAX_SIZE)))


def _check_binop(operator: str, left: Any, right: Any) -> None:
    if operator == "**":
        _check_power(left, right)
    elif operator == "%" and isinstance(left, str):
        _check_format(left, right)
    elif operator == "+" and not isinstance(left, int | float):
        check_size(left, right)
    elif operator == "*":
        _check_product(left, right)


def _check_power(base: Any, exponent: Any) -> None:
    if abs(base) > MAX_NUMBER or abs(exponent) > MAX_POWER:
        raise SecurityError("it raises to a large power")


def _check_product(left: Any, right: Any) -> None:
    numbers = [value for value in (left, right) if isinstance(value, int)]
    if sum(number.bit_length() for number in numbers) > MAX_BITS:
        raise SecurityError("it multiplies large numbers")
    texts = [value for value in (left, right) if hasattr(value, "__len__")]
    if texts and numbers and len(texts[0]) * numbers[0] > MAX_SIZE:
        raise SecurityError(f"it builds a value of more than {MAX_SIZE} characters")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent if indent is None else min(indent, 16),
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    _check_format(form, ())
    return datetime.now().strftime(form)
