"""Reads a section of calls as its text arrives."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from workers.markup.calls.format import CallFormat, Tools
from workers.markup.calls.source import CallEvent, Ended, Source, Started, Written

_END = Ended()

log = logging.getLogger(__name__)


class CallReader:
    """Reads the text after the ``start`` of a format, up to the end of its calls.

    ``is_constrained``: the text follows a grammar, so the events of a call are returned at once.
    Otherwise they are returned when the call is complete and its arguments are JSON. When
    ``is_over``, ``text`` is the text that was not a call, from ``text_place`` on, and ``rest`` the
    text after the calls.
    """

    def __init__(self, call_format: CallFormat, tools: Tools, *, is_constrained: bool) -> None:
        self.is_over = False
        self.text = ""
        self.rest = ""
        self._call_format = call_format
        self._is_constrained = is_constrained
        self._source = Source()
        self._steps = call_format.read(self._source, tools, is_constrained=is_constrained)
        self._waiting: list[CallEvent] = []  # of a call that is not complete yet
        self._released_to = 0  # end of the text whose events have been returned
        self._is_broken = False

    def feed(self, text: str) -> list[CallEvent]:
        """The events that ``text`` adds."""
        self._source.text += text
        found = [] if self._is_broken else self._go_on()
        if self._is_broken:
            self._seek_end()
        return found

    def finish(self, *, is_cut: bool) -> list[CallEvent]:
        """The last events, at the end of the text; ``is_cut``: by a limit, so that an incomplete
        call is kept."""
        self._source.is_over = True
        was_broken = self._is_broken
        found = [] if was_broken else self._go_on()
        if self.is_over:
            return found
        waiting, self._waiting = self._waiting, []
        is_text = was_broken or not (is_cut or self._is_constrained)
        self._end(len(self._source.text), len(self._source.text))
        self.text = self.text if is_text else ""
        return found + (waiting if is_cut and not was_broken else [])

    @property
    def text_place(self) -> int:
        return self._released_to

    def _go_on(self) -> list[CallEvent]:
        found: list[CallEvent] = []
        try:
            for event in self._events():
                found += self._release(event)
        # A reader may raise anything for an invalid call, which is then content.
        except Exception as error:
            log.debug(
                "invalid tool call", extra={"format": self._call_format.name, "error": repr(error)}
            )
            self._is_broken = True
        return found

    def _events(self) -> Iterator[CallEvent]:
        while (event := next(self._steps, _END)) is not None:
            if event is _END:
                self.is_over = True
                self.rest = self._source.rest
                return
            yield event

    def _release(self, event: CallEvent) -> list[CallEvent]:
        self._waiting.append(event)
        if not self._is_constrained and not isinstance(event, Ended):
            return []
        waiting = self._waiting
        if not self._is_constrained:
            _check(waiting)
        self._waiting = []
        self._released_to = self._source.place
        return waiting

    def _seek_end(self) -> None:
        """After an invalid call: text up to the end marker is content; without a marker, all."""
        text, end = self._source.text, self._call_format.end
        if not end:
            self._end(self._released_to, self._released_to)
        elif (found := text.find(end, self._released_to)) >= 0:
            self._end(found, found + len(end))

    def _end(self, end: int, after: int) -> None:
        self.is_over = True
        self.text, self.rest = self._source.text[self._released_to : end], self._source.text[after:]


def _check(events: list[CallEvent]) -> None:
    """Raise unless the call can be sent: its arguments are a JSON object without surrogates."""
    text = "".join(event.text for event in events if isinstance(event, Written))
    if not isinstance(json.loads(text, parse_constant=_refuse), dict):
        raise ValueError("the arguments are not an object")
    json.dumps(json.loads(text), ensure_ascii=False).encode()
    for event in events:
        if isinstance(event, Started):
            f"{event.name}{event.id}".encode()


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
