"""Positions of processes in their programs, found by replaying the product's own code.

A program is a function that uses the clients of ``Fixtures``. Its state between two requests is the
list of replies so far: to find the next request, the program is run again from the start with these
replies, and stopped by an exception at the first request without one. Each such position has a
number, and is computed once.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

from redis.exceptions import ConnectionError as RedisConnectionError

from tests.explorer.client import CallbackRedis, Request
from tests.explorer.commands import Reply, ReplyError
from tests.explorer.emulated import EmulatedRedis

Replies = tuple[Any, ...]
NOW_S = 1_000_000.0
_LOST = "lost"
LOST: Replies = (_LOST,)
"""Instead of replies: the connection was lost."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The program has ended, with a result or an uncaught exception."""

    result: Hashable = None
    error: str | None = None


class _Start(NamedTuple):
    name: str
    args: tuple[Hashable, ...]


class _MissingCommand(BaseException):
    """A command that is not emulated. A ``BaseException``, so that no product code catches it."""


class _LoggedException(BaseException):
    """The product has logged an exception and continued."""


class _Suspended(BaseException):
    """Stops a program at its first request without a reply."""

    def __init__(self, request: Request) -> None:
        self.request = request


class Positions:
    """All positions that any process has reached.

    ``programs``: functions by name. A request for which ``is_outside_state`` is true is no step: it
    uses no key of the state, and is answered at once.
    """

    def __init__(
        self,
        programs: Mapping[str, Callable[..., Hashable]],
        clients: tuple[CallbackRedis, ...],
        redis: EmulatedRedis,
        is_outside_state: Callable[[Request], bool],
    ) -> None:
        self._programs = programs
        self._clients = clients
        self._redis = redis
        self._is_outside_state = is_outside_state
        self._numbers: dict[tuple[_Start, tuple[Replies, ...]], int] = {}
        self._keys: list[tuple[_Start, tuple[Replies, ...]]] = []
        self._found: list[Request | Ended] = []
        self._after: dict[tuple[int, Replies], int] = {}
        self._suspended: _Suspended | None = None
        self.num_runs = 0

    def start(self, name: str, *args: Hashable) -> int:
        """The position before a program's first request."""
        return self._number_of(_Start(name, args), ())

    def after(self, position: int, replies: Replies) -> int:
        """The next position, given the replies to the request at this one."""
        key = (position, _to_tuples(replies))
        if key not in self._after:
            start, so_far = self._keys[position]
            self._after[key] = self._number_of(start, (*so_far, key[1]))
        return self._after[key]

    def at(self, position: int) -> Request | Ended:
        """The request at a position, or the program's end."""
        return self._found[position]

    def program_of(self, position: int) -> str:
        """The program's name."""
        return self._keys[position][0].name

    def name_of(self, position: int) -> str:
        """The program's name and arguments."""
        name, args = self._keys[position][0]
        return f"{name}({', '.join(map(str, args))})"

    def _number_of(self, start: _Start, so_far: tuple[Replies, ...]) -> int:
        key = (start, so_far)
        if key not in self._numbers:
            found = self._run(start, so_far)
            self._numbers[key] = len(self._keys)
            self._keys.append(key)
            self._found.append(found)
        return self._numbers[key]

    def _run(self, start: _Start, so_far: tuple[Replies, ...]) -> Request | Ended:
        self.num_runs += 1
        answers = iter(so_far)
        self._suspended = None
        for client in self._clients:
            client.send = lambda request: self._answer(request, answers)
        try:
            with deterministic(f"{start.name}-{'-'.join(map(str, start.args[-1:]))}"):
                return Ended(self._programs[start.name](*start.args))
        except _Suspended as stop:
            return stop.request
        except _MissingCommand as missing:
            raise NotImplementedError(str(missing)) from missing
        except (Exception, _LoggedException) as error:
            return Ended(error=f"{type(error).__name__}: {error}")

    def _answer(self, request: Request, answers: Iterator[Replies]) -> list[Reply | ReplyError]:
        if self._is_outside_state(request):
            try:
                return list(self._redis.apply({}, request).replies)
            except NotImplementedError as error:
                raise _MissingCommand(str(error)) from error
        replies = next(answers, None)
        if replies is None:
            # Clean-up code may send more requests: the program stops at the first one.
            self._suspended = self._suspended or _Suspended(request)
            raise self._suspended
        if replies == LOST:
            raise RedisConnectionError("lost")
        return [_to_lists(reply) for reply in replies]


def _to_tuples(reply: Any) -> Any:
    return tuple(map(_to_tuples, reply)) if isinstance(reply, list | tuple) else reply


def _to_lists(reply: Any) -> Any:
    return list(map(_to_lists, reply)) if isinstance(reply, tuple) else reply


@contextmanager
def deterministic(name: str) -> Iterator[None]:
    """Fix the clock, skip sleeps, disable logging, and derive random tokens from ``name``. An
    exception that is only logged counts as uncaught."""
    drawn = itertools.count()
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            patch.object(time, "time", lambda: NOW_S),
            patch.object(time, "sleep", _no_sleep),
            patch.object(secrets, "token_hex", lambda num=0: f"{name}-{next(drawn)}"),
            patch.object(logging.Logger, "exception", _not_caught),
        ):
            yield
    finally:
        logging.disable(level)


def _no_sleep(seconds: float) -> None:
    """Return at once."""


def _not_caught(logger: logging.Logger, message: str, *args: Any, **about: Any) -> None:
    if logger.name.startswith("rq."):  # the end of a job that was not a success
        return
    raise _LoggedException(f"{message} {about.get('extra', '')}: {sys.exc_info()[1]!r}")
