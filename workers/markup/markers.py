"""The texts that stand around the parts of an answer."""

from __future__ import annotations

from typing import NamedTuple

from workers.markup.calls.format import CallFormat


class Marker(NamedTuple):
    """Text around thoughts."""

    start: str
    end: str


class CallMarker(NamedTuple):
    """What begins a section of calls in the format ``form``.

    ``is_kept``: it belongs to what the format reads; ``is_first``: it counts before all content
    only; ``is_held``: from there on a grammar holds the call.
    """

    text: str
    form: CallFormat
    is_kept: bool = False
    is_first: bool = False
    is_held: bool = False
