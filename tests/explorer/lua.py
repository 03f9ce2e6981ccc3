"""Runs the product's Lua scripts, unchanged, against the Redis of ``commands``.

Values are converted between Lua and Redis as Redis documents it: a nil reply is ``false`` in Lua, a
status is a table with ``ok``, an error one with ``err``; a number that a script returns is
truncated to an integer, a table ends at its first nil.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

from lupa import lua51

# Imported to register their commands.
import tests.explorer.hash_commands
import tests.explorer.list_commands
import tests.explorer.ordered_commands
import tests.explorer.plain_commands  # noqa: F401
from tests.explorer.commands import Args, Reply, ReplyError, Status, run
from tests.explorer.memory import Transaction

_PRELUDE = b"""
local call, pcall_ = ...
redis = {call = call, pcall = pcall_, log = function() end}
function redis.error_reply(text) return {err = text} end
function redis.status_reply(text) return {ok = text} end
redis.sha1hex = nil
"""


class Scripts:
    """The registered scripts by their SHA1. Not thread-safe."""

    def __init__(self) -> None:
        self._runtime = lua51.LuaRuntime(encoding=None, register_eval=False)
        self._globals = self._runtime.globals()
        self._texts: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Any] = {}
        self._transaction: Transaction | None = None
        self._runtime.execute(_PRELUDE, self._call, self._pcall)

    def add(self, text: str, instead: str | None = None) -> bytes:
        """Register a script; returns its SHA1. ``instead``: the text that is run instead."""
        sha = hashlib.sha1(text.encode()).hexdigest().encode()
        self._texts[sha] = (text if instead is None else instead).encode()
        return sha

    def text(self, sha: bytes) -> str:
        """The text of a registered script."""
        return self._texts[sha].decode()

    def run(self, transaction: Transaction, sha: bytes, keys: Args, args: Args) -> Reply:
        """The script's reply; ``ReplyError`` when it returns or raises an error."""
        self._transaction = transaction
        self._globals[b"KEYS"] = self._runtime.table_from(keys)
        self._globals[b"ARGV"] = self._runtime.table_from(args)
        try:
            answer = self._function(sha)()
        except lua51.LuaError as error:
            raise ReplyError(f"ERR {error}") from error
        return self._to_redis(answer)

    def _function(self, sha: bytes) -> Callable[[], Any]:
        if sha not in self._functions:
            self._functions[sha] = self._runtime.compile(self._texts[sha])
        found: Callable[[], Any] = self._functions[sha]
        return found

    # Functions that scripts call.

    def _call(self, *words: Any) -> Any:
        assert self._transaction is not None
        return self._to_lua(run(self._transaction, [_to_word(word) for word in words]))

    def _pcall(self, *words: Any) -> Any:
        try:
            return self._call(*words)
        except ReplyError as error:
            return self._runtime.table_from({b"err": str(error).encode()})

    # Conversion of values.

    def _to_lua(self, reply: Reply) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._runtime.table_from([self._to_lua(item) for item in reply])
        if isinstance(reply, Status):
            return self._runtime.table_from({b"ok": bytes(reply)})
        return reply

    def _to_redis(self, value: Any) -> Reply:
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, bytes):
            return value
        if isinstance(value, int | float):
            return math.trunc(value)
        return self._table_to_redis(value)

    def _table_to_redis(self, table: Any) -> Reply:
        if isinstance(error := table[b"err"], bytes):
            raise ReplyError(error.decode())
        if isinstance(status := table[b"ok"], bytes):
            return Status(status)
        found: list[Reply] = []
        while (item := table[len(found) + 1]) is not None:
            found.append(self._to_redis(item))
        return found


def _to_word(value: Any) -> bytes:
    """An argument of ``redis.call``: text, or a number as C prints it with %.17g."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReplyError("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % value if value == int(value) else b"%.17g" % value
