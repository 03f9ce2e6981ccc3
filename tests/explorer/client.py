"""A redis-py client that calls a function instead of a server.

redis-py itself builds the commands and parses the replies. Each request is one step of its process:
a command, a script, or a transaction. A pipeline without a transaction is one step per command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import redis
from redis.client import Pipeline
from redis.exceptions import ResponseError

from tests.explorer.commands import Reply, ReplyError, Status

Words = tuple[bytes, ...]


Resends = Literal["never", "some", "always"]
"""Whether a client repeats a request whose reply was lost. "some": a limited number of times."""


class Request(NamedTuple):
    """The commands that a process sends to Redis in one step."""

    commands: tuple[Words, ...]
    is_transaction: bool = False
    resends: Resends = "never"


Send = Callable[[Request], list[Reply | ReplyError]]
"""Returns one reply per command, or raises the client's error, e.g. a lost connection."""


class CallbackRedis(redis.Redis):  # type: ignore[misc]
    """A client of Redis; ``send`` carries out its requests."""

    def __init__(
        self,
        on_script: Callable[[str], object],
        *,
        resends: Resends,
    ) -> None:
        super().__init__(protocol=2, unix_socket_path="/nowhere")
        self.send: Send = _not_connected
        self._on_script = on_script
        self.resends: Resends = resends
        self._encoder = self.get_encoder()

    def register_script(self, script: str) -> Any:
        self._on_script(script)
        return super().register_script(script)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        words = self.words_of(args)
        (reply,) = self.send(Request((words,), False, self.resends))
        return self.read_reply(reply, args[0], options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> CallbackPipeline:
        return CallbackPipeline(self, transaction)

    def words_of(self, args: tuple[Any, ...]) -> Words:
        """The command's arguments as they are sent."""
        first, *rest = args
        parts = (*str(first).split(), *rest)  # "SCRIPT LOAD" is two words
        return tuple(self._encoder.encode(part) for part in parts)

    def read_reply(self, reply: Reply, name: Any, options: dict[str, Any]) -> Any:
        """The reply as redis-py returns it."""
        if isinstance(reply, ReplyError):
            raise ResponseError(str(reply))
        options.pop("keys", None)
        callback = self.response_callbacks.get(name)
        return callback(_plain(reply), **options) if callback is not None else _plain(reply)


class CallbackPipeline(Pipeline):  # type: ignore[misc]
    """Commands that are sent as one transaction, or one after the other."""

    def __init__(self, client: CallbackRedis, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        return self._client.execute_command(*args, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack: list[Any] = self.command_stack
        self.command_stack: list[Any] = []
        self.watching = self.explicit_transaction = False
        if not stack:
            return []
        commands = [self._client.words_of(args) for args, _ in stack]
        requests = [tuple(commands)] if self.transaction else [(words,) for words in commands]
        replies: list[Reply] = []
        for part in requests:
            request = Request(part, self.transaction, self._client.resends)
            replies += self._client.send(request)
        return self._read(replies, stack, raise_on_error)

    def _read(self, replies: list[Reply], stack: list[Any], raise_on_error: bool) -> list[Any]:
        found: list[Any] = []
        for reply, (args, options) in zip(replies, stack, strict=True):
            try:
                found.append(self._client.read_reply(reply, args[0], options))
            except ResponseError as error:
                if raise_on_error:
                    raise
                found.append(error)
        return found


def _not_connected(request: Request) -> list[Reply]:
    raise AssertionError(f"the client is not connected: {request}")


def _plain(reply: Reply) -> Reply:
    return bytes(reply) if isinstance(reply, Status) else reply
