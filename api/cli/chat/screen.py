"""How an answer is shown while it comes: thoughts dimmed, Markdown as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

Json = dict[str, Any]

# Control characters could move the cursor or rename the window.
_UNSEEN = {code: None for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


class Screen:
    """The terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_thinking = False

    def note(self, text: str) -> None:
        """A remark of the program."""
        self._write(f"{text}\n", "dim")

    def error(self, text: str) -> None:
        """Why something was not done."""
        self._write(f"{text}\n", "red")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A sign of life within the block."""
        with self._console.status(Text(what, "dim")):
            yield

    def show(self, delta: Json) -> None:
        """Write what a chunk adds."""
        if thought := delta.get("reasoning_content"):
            self._is_thinking = True
            self._write(thought, "dim")
        text = delta.get("content") or ""
        if text:
            self._write("\n\n" if self._is_thinking else "")
            self._is_thinking = False
            self._write(text)

    def end(self, note: str = "") -> None:
        """The answer ends here; ``note`` says why, if it was cut."""
        self._is_thinking = False
        self._write(f" [{note}]" if note else "", "dim")
        self._write("\n\n")

    def _write(self, text: str, style: str = "") -> None:
        # Not as text: rich would set its tabs.
        segment = Segment(text.translate(_UNSEEN), Style.parse(style))
        self._console.print(Segments([segment]), end="", soft_wrap=True)
