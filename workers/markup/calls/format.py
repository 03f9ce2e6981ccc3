"""What a way of writing calls is: markers, a reader, and the grammar that its reader can read."""

from __future__ import annotations

from typing import Any, Protocol

from workers.markup.calls.rules import Rules
from workers.markup.calls.source import Source, Steps

Tools = list[dict[str, Any]]


class CallFormat(Protocol):
    """One way of writing calls.

    ``start`` opens a section of calls, "" if nothing does; ``end`` closes it, "" where it ends by
    itself.
    """

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> str: ...

    @property
    def end(self) -> str: ...

    def read(self, source: Source, tools: Tools, *, is_held: bool) -> Steps[None]:
        """The calls behind ``start``, up to and with ``end``.

        ``is_held``: a grammar of ``section`` holds the text. Raises ``UnreadableError``.
        """
        ...

    def section(self, rules: Rules) -> str:
        """The name of the rule for what ``read`` reads."""
        ...


def parameters_of(tools: Tools, name: str) -> Any:
    """The schema of a tool's arguments; ``None`` for a tool that nobody has."""
    functions = (tool.get("function") or {} for tool in tools)
    return next((one.get("parameters") for one in functions if one.get("name") == name), None)
