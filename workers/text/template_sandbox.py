"""A Jinja environment for chat templates that nobody has read: bounded in time, size and reach.

Jinja's sandbox keeps a template away from Python's inner parts, but not from a loop of loops or
from a string that doubles itself. Chat templates come out of downloaded files (CVE-2024-34359). So
the time of a render is bounded, and every operation that can build a value larger than its operands
is checked before it builds it. What no chat template needs and could allocate without bound is
taken out. Values that a template is only given cost nothing, however often it passes them on.

Text keeps whether it came with the request (``input_text``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer

from workers.text import input_text
from workers.text.input_text import InputText
from workers.text.template_filters import chat_filters, joined, replaced
from workers.text.template_limits import (
    check_binop,
    check_format,
    check_length,
    check_numbers,
    tick,
    to_text,
)

_UNBOUNDED_METHODS = frozenset(
    {"center", "encode", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"}
)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates, with limits.

    Same as there: trimmed blocks, loop controls, ``raise_exception``, ``strftime_now``, a
    ``tojson`` that escapes nothing, and the ``generation`` tag (which marks text for training).
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
        self.filters[_TICK] = _tick
        self.filters[_CONCAT] = _concat
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _instrument(tree)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """See jinja2; leaves out the string methods that build texts of any length."""
        if isinstance(obj, str | bytes) and attr in _UNBOUNDED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """See jinja2; ``str.format`` with its arguments checked first."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            has_input = check_format(value.__self__, (*args, *kwargs.values()))
            text = wrapped(*args, **kwargs)
            return InputText(text) if has_input else text

        return limited

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """See jinja2; every call of a template comes through here."""
        tick()
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
        """See jinja2; checks what the operation would build before it is built."""
        tick()
        has_input = check_binop(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        return InputText(result) if has_input else result


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_TICK = "_tick"
_CONCAT = "_concat"


def _instrument(tree: nodes.Template) -> nodes.Template:
    """Each round of a loop and each run of a macro is a step; ``~`` is bounded."""
    repeated: tuple[type[nodes.Node], ...] = (nodes.For, nodes.Macro, nodes.CallBlock)
    for block in tree.find_all(repeated):
        assert isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock)
        step = nodes.ExprStmt(_filter(_TICK, nodes.Const(None)))
        step.set_lineno(block.lineno)
        block.body.insert(0, step)
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
def _tick(_context: Context, _value: object) -> None:
    # Asking for the context keeps Jinja from running this once, when it compiles.
    tick()


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
