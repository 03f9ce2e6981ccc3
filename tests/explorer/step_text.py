"""Describes a step of the world in a line of text."""

from __future__ import annotations

import hashlib
from typing import Any

from jobs.storage.lua import (
    batch_scripts,
    claim_scripts,
    job_scripts,
    order_scripts,
    parking_scripts,
    submit_scripts,
    take_scripts,
)
from tests.explorer.client import Words
from tests.explorer.commands import ReplyError
from tests.explorer.positions import Ended, Positions

_FATES = {
    "ok": "",
    "reply_lost": "  (carried out, and the reply is lost)",
    "request_lost": "  (never arrives)",
    "delayed": "  (given up; it may yet arrive)",
    "not_received": "  (no process receives it)",
}
_MODULES = (
    batch_scripts,
    claim_scripts,
    job_scripts,
    order_scripts,
    parking_scripts,
    submit_scripts,
    take_scripts,
)
SCRIPTS: dict[str, str] = {
    name: text
    for module in _MODULES
    for name, text in vars(module).items()
    if isinstance(text, str) and name.isupper()
}
"""The scripts by name."""
_NAMES = {hashlib.sha1(text.encode()).hexdigest(): name for name, text in SCRIPTS.items()}
_MAX_CHARS = 150


def describe(positions: Positions, label: tuple[Any, ...]) -> str:
    """The label of a move: the process, the event or fate, the position, the replies, the next
    position."""
    process, fate, *rest = label
    if not rest:
        return f"{process} {fate}"
    position, *more = rest
    request = positions.at(position)
    request_text = "" if isinstance(request, Ended) else "; ".join(map(_command, request.commands))
    if not more:
        return f"{process} {fate}: {request_text}"
    replies, after = more
    ended = positions.at(after)
    answer = "" if fate in ("request_lost", "delayed") else f" -> {', '.join(map(_reply, replies))}"
    end = f"; it ends: {_result(ended)}" if isinstance(ended, Ended) else ""
    return (
        f"{process} in {positions.program_of(position)}: {request_text}{answer}{_FATES[fate]}{end}"
    )


def _result(ended: Ended) -> str:
    """The result, without default values."""
    if ended.error:
        return ended.error
    result = ended.result
    if not isinstance(result, tuple) or not hasattr(result, "_fields"):
        return str(result)
    default = getattr(result, "_field_defaults", {})
    pairs = zip(result._fields, result, strict=True)
    return " ".join(f"{name}={v}" for name, v in pairs if v != default.get(name, False)) or "-"


def _command(words: Words) -> str:
    if words[0] == b"EVALSHA":
        last = 3 + int(words[2])
        name = _NAMES.get(words[1].decode(), "a script")
        return f"{name} {_join(words[last:])}"
    return _join(words)


def _join(words: Words) -> str:
    text = " ".join(word.decode(errors="replace") for word in words)
    return text if len(text) < _MAX_CHARS else f"{text[:_MAX_CHARS]}..."


def _reply(reply: Any) -> str:
    if isinstance(reply, ReplyError):
        return f"error {reply}"
    if isinstance(reply, bytes):
        text = reply.decode(errors="replace")
        return text if len(text) < _MAX_CHARS else f"{text[:_MAX_CHARS]}..."
    if isinstance(reply, list | tuple):
        return f"[{', '.join(map(_reply, reply))}]"
    return str(reply)
