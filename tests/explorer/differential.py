"""Differential testing of the emulated Redis: a real one must give the same replies."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import ResponseError

from tests.explorer.client import CallbackRedis, Request, Words
from tests.explorer.commands import Reply, ReplyError
from tests.explorer.emulated import EmulatedRedis
from tests.explorer.memory import Database, Hash, Stream, Value, Zset

_NOW = (1000, 5)
_UNORDERED = (b"SMEMBERS", b"SUNION", b"HKEYS")


class DifferentialRedis:
    """The emulated Redis, and a real one as its reference. Both get the same commands and begin
    empty; in scripts, both clocks are fixed."""

    def __init__(self, url: str) -> None:
        self.emulated = EmulatedRedis(_NOW)
        self.state: Database = {}
        self._reference = redis.Redis.from_url(url, protocol=2)
        self._connection = self._reference.connection_pool.get_connection()
        self._shas: dict[bytes, bytes] = {}

    def client(self) -> CallbackRedis:
        """A client that sends each request to both, and fails when the replies differ."""
        client = CallbackRedis(self.add_script, resends="never")
        client.send = self.send
        return client

    def close(self) -> None:
        self._reference.connection_pool.release(self._connection)
        self._reference.close()

    def add_script(self, text: str) -> None:
        original = self.emulated.scripts.add(text)
        fixed = text.replace("redis.call('TIME')", f"({{'{_NOW[0]}', '{_NOW[1]}'}})")
        sha = self.emulated.scripts.add(fixed)
        assert self._reference.script_load(fixed).encode() == sha
        self._shas[original] = sha

    def send(self, request: Request) -> list[Reply | ReplyError]:
        commands = tuple(self._with_fixed_clock(words) for words in request.commands)
        outcome = self.emulated.apply(self.state, request._replace(commands=commands))
        self.state = outcome.after
        for words, reply in zip(commands, outcome.replies, strict=True):
            if words[0] != b"TIME":
                _compare(words, reply, self._send_to_reference(words))
        return list(outcome.replies)

    def send_words(self, *words: Any) -> Reply | ReplyError:
        """Send one command, given as its arguments."""
        plain = tuple(w if isinstance(w, bytes) else str(w).encode() for w in words)
        return self.send(Request((plain,)))[0]

    def compare_states(self) -> None:
        """Fail when the contents differ."""
        cells = self.emulated.cells
        ours = {key: cells[number] for key, number in self.state.items()}
        assert sorted(ours) == sorted(self._reference.keys())
        for key, cell in ours.items():
            assert _comparable(cell.value) == self._value(key), key
            left_ms = self._reference.pttl(key)
            assert (left_ms == -1) == (cell.ttl_s is None), key
            if cell.ttl_s is not None:
                assert cell.ttl_s * 1000 - 20_000 < left_ms <= cell.ttl_s * 1000, key

    def _with_fixed_clock(self, words: Words) -> Words:
        is_script = words[0] == b"EVALSHA"
        return (words[0], self._shas[words[1]], *words[2:]) if is_script else words

    def _send_to_reference(self, words: Words) -> Any:
        self._connection.send_command(*words)
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    def _value(self, key: bytes) -> Any:
        real = self._reference
        match real.type(key):
            case b"string":
                return real.get(key)
            case b"list":
                return real.lrange(key, 0, -1)
            case b"set":
                return real.smembers(key)
            case b"hash":
                return real.hgetall(key)
            case b"zset":
                return real.zrange(key, 0, -1, withscores=True)
            case kind:
                assert kind == b"stream", kind
                return real.xrange(key)


def _comparable(value: Value) -> Any:
    if isinstance(value, Zset):
        return sorted(value.items(), key=lambda item: (item[1], item[0]))
    if isinstance(value, Stream):
        return [
            (b"%d-%d" % e.id, dict(zip(e.fields[::2], e.fields[1::2], strict=True))) for e in value
        ]
    if isinstance(value, Hash):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _compare(words: Words, ours: Reply | ReplyError, real: Any) -> None:
    if isinstance(real, ResponseError):
        assert isinstance(ours, ReplyError), (words, ours, str(real))
        text = str(ours).removeprefix("ERR ")
        assert str(real).removeprefix("ERR ").startswith(text), (words, ours, str(real))
        return
    if words[0] in _UNORDERED:
        ours, real = sorted(ours), sorted(real)
    if words[0] == b"HGETALL":
        ours, real = _pairs(ours), _pairs(real)
    assert _plain(ours) == real, (words, ours, real)


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _plain(reply: Reply) -> Any:
    return bytes(reply) if isinstance(reply, bytes) else reply
