"""Where a process stands in its program, found by running the product's own code again.

A program is a function that uses the clients of a kit. Its state between two requests is the list
of replies that it has had so far: to find the next request it is run from the start, fed with
these, and stopped by an exception as it asks for more. Each such place is a point, known by a
number, and looked up but once.
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

from tests.explorer.client import AskingRedis, Request
from tests.explorer.commands import Reply, ReplyError
from tests.explorer.emulated import EmulatedRedis

Replies = tuple[Any, ...]
NOW_S = 1_000_000.0
_LOST = "lost"
LOST: Replies = (_LOST,)
"""In place of replies: the connection broke."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The program is over: what it returned, or the exception that it did not expect."""

    result: Hashable = None
    broken: str | None = None


class _Start(NamedTuple):
    name: str
    args: tuple[Hashable, ...]


class _Missing(BaseException):
    """The explorer's Redis lacks a command. No product code may catch that."""


class _Logged(BaseException):
    """The product has logged an exception and gone on."""


class _Suspended(BaseException):
    """Stops a program as it asks for what nobody has answered yet."""

    def __init__(self, request: Request) -> None:
        self.request = request


class Points:
    """All points that any process has been at.

    ``programs``: functions by name, which get the start's arguments. Requests that ``is_private``
    are no steps: they touch nothing that belongs to a state, and are answered at once.
    """

    def __init__(
        self,
        programs: Mapping[str, Callable[..., Hashable]],
        clients: tuple[AskingRedis, ...],
        redis: EmulatedRedis,
        is_private: Callable[[Request], bool],
    ) -> None:
        self._programs = programs
        self._clients = clients
        self._redis = redis
        self._is_private = is_private
        self._numbers: dict[tuple[_Start, tuple[Replies, ...]], int] = {}
        self._places: list[tuple[_Start, tuple[Replies, ...]]] = []
        self._found: list[Request | Ended] = []
        self._after: dict[tuple[int, Replies], int] = {}
        self._suspended: _Suspended | None = None
        self.num_runs = 0

    def start(self, name: str, *args: Hashable) -> int:
        """The point before a program's first request."""
        return self._number_of(_Start(name, args), ())

    def after(self, point: int, replies: Replies) -> int:
        """The point to which the replies to this one's request lead."""
        key = (point, _frozen(replies))
        if key not in self._after:
            start, so_far = self._places[point]
            self._after[key] = self._number_of(start, (*so_far, key[1]))
        return self._after[key]

    def at(self, point: int) -> Request | Ended:
        """What the process asks for there, or how it ended."""
        return self._found[point]

    def program_of(self, point: int) -> str:
        """The program's name."""
        return self._places[point][0].name

    def name_of(self, point: int) -> str:
        """The program's name and arguments."""
        name, args = self._places[point][0]
        return f"{name}({', '.join(map(str, args))})"

    def _number_of(self, start: _Start, so_far: tuple[Replies, ...]) -> int:
        key = (start, so_far)
        if key not in self._numbers:
            found = self._run(start, so_far)
            self._numbers[key] = len(self._places)
            self._places.append(key)
            self._found.append(found)
        return self._numbers[key]

    def _run(self, start: _Start, so_far: tuple[Replies, ...]) -> Request | Ended:
        self.num_runs += 1
        answers = iter(so_far)
        self._suspended = None
        for client in self._clients:
            client.ask = lambda request: self._answer(request, answers)
        try:
            with standing_still(f"{start.name}-{'-'.join(map(str, start.args[-1:]))}"):
                return Ended(self._programs[start.name](*start.args))
        except _Suspended as stop:
            return stop.request
        except _Missing as missing:
            raise NotImplementedError(str(missing)) from missing
        except (Exception, _Logged) as error:
            return Ended(broken=f"{type(error).__name__}: {error}")

    def _answer(self, request: Request, answers: Iterator[Replies]) -> list[Reply | ReplyError]:
        if self._is_private(request):
            try:
                return list(self._redis.do({}, request).replies)
            except NotImplementedError as error:
                raise _Missing(str(error)) from error
        replies = next(answers, None)
        if replies is None:
            # What cleans up after any exception asks on: it is stopped at the same place.
            self._suspended = self._suspended or _Suspended(request)
            raise self._suspended
        if replies == LOST:
            raise RedisConnectionError("lost")
        return [_thawed(reply) for reply in replies]


def _frozen(reply: Any) -> Any:
    return tuple(map(_frozen, reply)) if isinstance(reply, list | tuple) else reply


def _thawed(reply: Any) -> Any:
    return list(map(_thawed, reply)) if isinstance(reply, tuple) else reply


@contextmanager
def standing_still(name: str) -> Iterator[None]:
    """No time passes, nobody sleeps, nothing is logged; what is drawn at random is told by the
    ``name``. An exception that is only logged counts as not caught."""
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
    """Sleep not at all."""


def _not_caught(logger: logging.Logger, message: str, *args: Any, **about: Any) -> None:
    if logger.name.startswith("rq."):  # the end of a job that was not a success
        return
    raise _Logged(f"{message} {about.get('extra', '')}: {sys.exc_info()[1]!r}")
