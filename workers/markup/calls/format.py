"""The interface of a call format: its markers, its reader, and a grammar for its reader."""

from __future__ import annotations

from typing import Any, Protocol

from workers.markup.calls.rules import Rules
from workers.markup.calls.source import Source, Steps

Tools = list[dict[str, Any]]


class CallFormat(Protocol):
    """One format of tool calls.

    ``start`` opens a section of calls and ``end`` closes it; each is "" if there is no such marker.
    """

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> str: ...

    @property
    def end(self) -> str: ...

    def read(self, source: Source, tools: Tools, *, is_constrained: bool) -> Steps[None]:
        """Read the calls after ``start``, up to and including ``end``.

        ``is_constrained``: the text follows the grammar of ``section``. Raises ``UnreadableError``.
        """
        ...

    def section(self, rules: Rules) -> str:
        """Add the rules for the text that ``read`` reads; returns the name of the first rule."""
        ...


def parameters_of(tools: Tools, name: str) -> Any:
    """The schema of a tool's arguments; ``None`` for an unknown tool."""
    functions = (tool.get("function") or {} for tool in tools)
    return next((one.get("parameters") for one in functions if one.get("name") == name), None)
