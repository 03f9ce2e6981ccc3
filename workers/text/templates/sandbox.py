"""A Jinja environment for untrusted chat templates, with limits of time, size and access.

Chat templates come from downloaded files (CVE-2024-34359). Jinja's sandbox protects Python's
internals, but not against nested loops or a string that doubles itself. So the time of a render is
limited, and every operation that can build a value larger than its operands is checked before.
Features that could allocate without limit, and that no chat template needs, are removed. Passing
a value on costs nothing.

Text keeps its origin: template or request (``input_text``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer

from workers.text.templates import input_text
from workers.text.templates.filters import chat_filters, joined, replaced
from workers.text.templates.input_text import InputText
from workers.text.templates.limits import (
    check_binop,
    check_format,
    check_length,
    check_numbers,
    check_time,
    to_text,
)

_UNBOUNDED_METHODS = frozenset(
    {"center", "encode", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"}
)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Like the environment of transformers' chat templates, but with limits.

    As there: trimmed blocks, loop controls, ``raise_exception``, ``strftime_now``, ``tojson``
    without escaping, and the ``generation`` tag (which marks text for training).
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(input_text.concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=to_text,
        )
        self.filters = chat_filters(self.filters)
        self.filters[_CHECK_TIME] = _check_time
        self.filters[_CONCAT] = _concat
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _instrument(tree)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """See jinja2; also forbids the string methods that build texts of any length."""
        if isinstance(obj, str | bytes) and attr in _UNBOUNDED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """See jinja2; checks the arguments of ``str.format`` before, and keeps their origin."""
        if super().wrap_str_format(value) is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, (*args, *kwargs.values()))
            formatter = _Formatter(self)
            formatter.vformat(value.__self__, args, kwargs)
            return input_text.concat(formatter.parts)

        return limited

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """See jinja2; checks every call in a template."""
        check_time()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and args:
            if name == "replace":
                return replaced(owner, *args)
            if name == "join":
                return joined(owner, args[0])
        elif isinstance(owner, int | float):
            check_numbers(*args, *kwargs.values())
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """See jinja2; checks the size of the result before it is built."""
        check_time()
        check_binop(operator, left, right)
        if operator == "%" and isinstance(left, str):
            return input_text.percent(left, right)
        return super().call_binop(context, operator, left, right)


class _Formatter(SandboxedFormatter):
    """``str.format`` that also collects the ``parts`` of its result, with their origin."""

    def __init__(self, environment: TemplateSandbox) -> None:
        super().__init__(environment)
        self.parts: list[str] = []
        self._depth = 0  # above 1 in a nested format, such as a width

    def parse(self, form: Any) -> Iterator[Any]:
        self._depth += 1
        for literal, *field in super().parse(form):
            if self._depth == 1:
                self.parts.append(InputText(literal) if isinstance(form, InputText) else literal)
            yield (literal, *field)
        self._depth -= 1

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is None:
            return value
        convert = super().convert_field
        return input_text.formatted(value, conversion == "s", lambda it: convert(it, conversion))

    def format_field(self, value: Any, format_spec: str) -> str:
        text = input_text.formatted(value, not format_spec, lambda it: format(it, format_spec))
        if self._depth == 1:
            self.parts.append(text)
        return text


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_CHECK_TIME = "_check_time"
_CONCAT = "_concat"


def _instrument(tree: nodes.Template) -> nodes.Template:
    """Check the time in each loop iteration and macro call, and the size of each ``~``."""
    repeated: tuple[type[nodes.Node], ...] = (nodes.For, nodes.Macro, nodes.CallBlock)
    for block in tree.find_all(repeated):
        assert isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock)
        check = nodes.ExprStmt(_filter(_CHECK_TIME, nodes.Const(None)))
        check.set_lineno(block.lineno)
        block.body.insert(0, check)
    _ConcatReplacer().visit(tree)
    return tree


class _ConcatReplacer(NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - jinja2's name
        self.generic_visit(node)
        parts = nodes.List(node.nodes)
        parts.set_lineno(node.lineno or 1)
        return _filter(_CONCAT, parts)


def _filter(name: str, node: nodes.Expr) -> nodes.Filter:
    wrapped = nodes.Filter(node, name, [], [], None, None)
    wrapped.set_lineno(node.lineno or 1)
    return wrapped


@pass_context
def _check_time(_context: Context, _value: object) -> None:
    # With ``pass_context`` Jinja does not evaluate it as a constant at compile time.
    check_time()


@pass_context
def _concat(_context: Context, parts: list[Any]) -> str:
    texts = list(map(to_text, parts))
    check_length(sum(map(len, texts)))
    return input_text.concat(texts)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    check_format(form, ())
    return datetime.now().strftime(form)
