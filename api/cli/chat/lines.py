"""What the user types: lines with editing and a history across runs, and texts of several lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PROMPT, _MORE = ">>> ", "... "
_QUOTES = '"""'
_MAX_LINES = 1000


@contextlib.contextmanager
def line_history(file: Path) -> Iterator[None]:
    """Within the block, ``input`` has line editing and the history of ``file``.

    A file that cannot be read or written is no reason not to talk.
    """
    import readline

    readline.set_history_length(_MAX_LINES)
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.read_history_file(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(file)


def read_text() -> str:
    """The next text: a line, lines that end in a backslash, or all between triple quotes.

    Raises ``EOFError`` at Ctrl-D and ``KeyboardInterrupt`` at Ctrl-C.
    """
    line = input(_PROMPT)
    if line.startswith(_QUOTES):
        return _quoted(line.removeprefix(_QUOTES))
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(input(_MORE))
    return "\n".join(lines)


def _quoted(first: str) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith(_QUOTES):
        lines.append(input(_MORE))
    lines[-1] = lines[-1].rstrip().removesuffix(_QUOTES)
    return "\n".join(lines).strip("\n")
