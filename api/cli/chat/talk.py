"""The conversation's loop: read, ask, show; and the same for one question without a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from api.cli.chat.commands import Commands
from api.cli.chat.conversation import Conversation
from api.cli.chat.interrupts import interruptible
from api.cli.chat.lines import line_history, read_text
from api.cli.chat.screen import Screen
from api.cli.client import CliError, Server

Json = dict[str, Any]

_PATH = "/v1/chat/completions"
_HELLO = "/help lists commands, Ctrl-C stops an answer, Ctrl-D ends"


class Talk:
    """A conversation in a terminal. ``folder`` is where files of ``/save`` are."""

    def __init__(self, server: Server, talk: Conversation, screen: Screen, folder: Path) -> None:
        self._server = server
        self._talk = talk
        self._screen = screen
        self._commands = Commands(server, talk, screen, folder)

    def run(self, history: Path) -> None:
        """Until the user ends it. Raises ``CliError`` when the model cannot be loaded."""
        with contextlib.suppress(KeyboardInterrupt):
            self._commands.prepare()
            self._screen.note(_HELLO)
            with line_history(history), contextlib.suppress(EOFError):
                while True:
                    self._take_turn()
        self._screen.note("")

    def _take_turn(self) -> None:
        try:
            text = read_text()
        except KeyboardInterrupt:
            self._screen.note("\n(Ctrl-D or /bye ends)")
            return
        try:
            if text.startswith("/"):
                self._commands.run(text)
            elif text.strip():
                self._answer(text)
        except KeyboardInterrupt:
            self._screen.note("stopped")
        except CliError as error:
            self._screen.error(str(error))

    def _answer(self, text: str) -> None:
        """Ask, and show the answer. Ctrl-C ends it, which cancels its job; what came is kept."""
        body, said, note = self._talk.ask(text), [""], ""
        try:
            with interruptible() as is_interrupted:
                for delta, reason in self._deltas(body):
                    # First kept, then shown: Ctrl-C may come while it is written.
                    said.append(delta.get("content") or "")
                    self._screen.show(delta)
                    note = "cut at the limit of tokens" if reason == "length" else note
                    if is_interrupted():
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            note = "stopped"
        finally:
            self._talk.answer("".join(said))
            if len(said) > 1 or note:
                self._screen.end(note)

    def _deltas(self, body: Json) -> Iterator[tuple[Json, str | None]]:
        with contextlib.closing(self._server.stream(_PATH, body)) as chunks:
            with self._screen.waiting("waiting for the model"):
                first = next(chunks, None)
            if first is not None:
                yield from read_chunk(first)
            for chunk in chunks:
                yield from read_chunk(chunk)


def answer_once(server: Server, talk: Conversation, question: str, output: TextIO) -> None:
    """Write the answer to one question, and nothing else. Raises ``CliError``."""
    if not question.strip():
        raise CliError("there is no question: give one as an argument, or on standard input")
    with contextlib.closing(server.stream(_PATH, talk.ask(question))) as chunks:
        for chunk in chunks:
            for delta, _ in read_chunk(chunk):
                output.write(delta.get("content") or "")
                output.flush()
    output.write("\n")
    output.flush()


def read_chunk(chunk: Json) -> Iterator[tuple[Json, str | None]]:
    """What a chunk adds, and why the answer ends if it does. Raises ``CliError`` of an error."""
    if "error" in chunk:
        raise CliError(str(chunk["error"]["message"]))
    for choice in chunk["choices"]:
        yield choice["delta"], choice["finish_reason"]
