"""Says a step of the world in a line."""

from __future__ import annotations

import hashlib
from typing import Any

from jobs.storage.lua import claim_scripts, job_scripts
from tests.explorer.client import Words
from tests.explorer.commands import ReplyError
from tests.explorer.points import Ended, Points

_FATES = {
    "ok": "",
    "lost": "  (done, and the reply is lost)",
    "cut": "  (never arrives)",
    "late": "  (given up; it may yet arrive)",
    "unheard": "  (nobody hears it)",
}
_NAMES = {
    hashlib.sha1(text.encode()).hexdigest(): name
    for name, text in (vars(job_scripts) | vars(claim_scripts)).items()
    if isinstance(text, str) and name.isupper()
}
_MOST = 150


def describe(points: Points, label: tuple[Any, ...]) -> str:
    """The label of a move: who, what (or how it went), the point, the replies, the next point."""
    who, what, *rest = label
    if not rest:
        return f"{who} {what}"
    point, *more = rest
    request = points.at(point)
    asked = "" if isinstance(request, Ended) else "; ".join(map(_command, request.commands))
    if not more:
        return f"{who} {what}: {asked}"
    replies, after = more
    ended = points.at(after)
    said = "" if what in ("cut", "late") else f" -> {', '.join(map(_reply, replies))}"
    end = f"; it ends: {_result(ended)}" if isinstance(ended, Ended) else ""
    return f"{who} in {points.program_of(point)}: {asked}{said}{_FATES[what]}{end}"


def _result(ended: Ended) -> str:
    """What is worth to be said of it."""
    if ended.broken:
        return ended.broken
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
    return text if len(text) < _MOST else f"{text[:_MOST]}..."


def _reply(reply: Any) -> str:
    if isinstance(reply, ReplyError):
        return f"error {reply}"
    if isinstance(reply, bytes):
        text = reply.decode(errors="replace")
        return text if len(text) < _MOST else f"{text[:_MOST]}..."
    if isinstance(reply, list | tuple):
        return f"[{', '.join(map(_reply, reply))}]"
    return str(reply)
