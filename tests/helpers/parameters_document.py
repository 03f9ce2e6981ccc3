"""docs/parameters.md as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCUMENT = Path(__file__).parents[2] / "docs" / "parameters.md"
ROUTES = (
    "chat",
    "completions",
    "responses",
    "messages",
    "completion",
    "infill",
    "api_chat",
    "api_generate",
)
_HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": _HI}),
    "completions": ("/v1/completions", {"prompt": "x"}),
    "templated": ("/v1/completions", {"prompt": "x", "apply_chat_template": True}),
    "responses": ("/v1/responses", {"input": "hi"}),
    "messages": ("/v1/messages", {"messages": _HI, "max_tokens": 50}),
    "completion": ("/completion", {"prompt": "x"}),
    "infill": ("/infill", {"input_prefix": "x", "input_suffix": "y"}),
    "api_chat": ("/api/chat", {"messages": _HI}),
    "api_generate": ("/api/generate", {"prompt": "x"}),
}
"""The path and the smallest body of each route, and of chats without messages."""

_NAMES = re.compile(r"`([^`]*)`")
_VALUE = re.compile(r"`([^`]*)`(?: = `(?P<same>[^`]*)`| = (?P<none>none)|: (?P<told>[^;|]*))")


class Odd(NamedTuple):
    """A value of the last column: refused, as good as another, as good as nothing, or itself."""

    value: Any
    is_refused: bool = False
    is_nothing: bool = False
    has_same: bool = False
    same: Any = None


class Row(NamedTuple):
    """What a line says of one field on one route; ``example`` is a part of the route's body."""

    field: str
    route: str
    example: dict[str, Any] | None
    odd: list[Odd]

    @property
    def others(self) -> dict[str, Any]:
        """The example without the field."""
        return {name: value for name, value in (self.example or {}).items() if name != self.field}


class Refused(NamedTuple):
    """What a line says of a field that is refused."""

    field: str
    value: Any
    taken: list[Any]
    reason: str


def rows() -> list[Row]:
    """The tables of fields that are honoured, one row for each field on each route."""
    return [row for cells in _lines(6) for row in _rows(cells)]


def without_effect() -> list[tuple[str, Any]]:
    """The fields that are taken and change nothing, with a value."""
    lines = [_fragment(cells[1]) for cells in _lines(2, "## Taken without effect")]
    return [pair for fragment in lines for pair in (fragment or {}).items()]


def refused() -> list[Refused]:
    """The fields that are refused."""
    return [
        Refused(*_NAMES.findall(field), *_values(value), _values(taken), reason)
        for field, value, taken, reason in _lines(4, "## Refused")
    ]


def _lines(num_cells: int, heading: str = "## Sampling") -> Iterator[list[str]]:
    """The lines with so many cells behind a heading, without the heads of tables."""
    text = DOCUMENT.read_text().partition(heading)[2]
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        is_head = cells[0] in ("field", "from") or set(cells[0]) == {"-"}
        if line.startswith("|") and len(cells) == num_cells and not is_head:
            yield cells


def _rows(cells: list[str]) -> Iterator[Row]:
    fields, _, routes, example, _, odd = cells
    names, first = _NAMES.findall(fields), _fragment(example)
    for route in ROUTES if routes == "all" else routes.split(", "):
        for name in names:
            yield Row(name, route, _renamed(first, names[0], name), list(_odd(odd)))


def _fragment(cell: str) -> dict[str, Any] | None:
    return json.loads("{" + cell.strip("`") + "}") if cell else None


def _renamed(example: dict[str, Any] | None, name: str, other: str) -> dict[str, Any] | None:
    if example is None:
        return None
    return {(other if key == name else key): value for key, value in example.items()}


def _odd(cell: str) -> Iterator[Odd]:
    for found in _VALUE.finditer(cell):
        same = found["same"]
        yield Odd(
            json.loads(found[1]),
            is_refused=(found["told"] or "").startswith("400"),
            is_nothing=found["none"] is not None,
            has_same=same is not None,
            same=json.loads(same) if same is not None else None,
        )


def _values(cell: str) -> list[Any]:
    return [json.loads(text) for text in _NAMES.findall(cell)]
