"""The texts around the parts of an answer."""

from __future__ import annotations

from typing import NamedTuple

from workers.markup.calls.format import CallFormat


class Marker(NamedTuple):
    """The texts before and after the reasoning."""

    start: str
    end: str


class CallMarker(NamedTuple):
    """The text that starts a section of calls in ``call_format``, with its ``start`` first.

    ``is_kept``: the format reads it too. ``is_first``: it counts only before any content.
    ``is_constrained``: the call after it follows a grammar.
    """

    text: str
    call_format: CallFormat
    is_kept: bool = False
    is_first: bool = False
    is_constrained: bool = False
