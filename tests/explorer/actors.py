"""The processes of the world: what is known of each besides its place in a program."""

from __future__ import annotations

from typing import NamedTuple

from jobs.events import EventKind

NOWHERE = -1


class Supervisor(NamedTuple):
    """``mode``: idle (runs nothing), runs (``worker``), dead. ``suspects``: of its worker's death,
    once they were looked for."""

    mode: str = "idle"
    worker: int = NOWHERE
    point: int = NOWHERE
    suspects: frozenset[str] | None = None


class Lane(NamedTuple):
    """The thread of a worker that takes jobs. ``job``: the one that it is about to admit."""

    job: str = ""
    point: int = NOWHERE


class Doing(NamedTuple):
    """What a stream does next: a program and its arguments."""

    name: str
    args: tuple[str | int, ...]


class Stream(NamedTuple):
    """A job that runs in a worker: its newest event, the tokens said, and what it does now."""

    job: str
    attempt: int
    seq: int
    said: int
    doing: Doing
    point: int = NOWHERE


class Worker(NamedTuple):
    """``mode``: unborn, live, told (to stop), dead (with ``code``, not settled yet), gone."""

    mode: str = "unborn"
    owner: int = NOWHERE
    code: int = 0
    lane: Lane = Lane()
    streams: tuple[Stream, ...] = ()
    stops: frozenset[str] = frozenset()

    @property
    def is_alive(self) -> bool:
        return self.mode in ("live", "told")

    @property
    def is_at_rest(self) -> bool:
        """Nothing is in its hands, and it owes nobody a settling."""
        return self.mode in ("unborn", "gone") or (
            self.is_alive and self.lane.point == NOWHERE and not self.streams
        )


UNBORN = Worker()
GONE = Worker("gone")


class Client(NamedTuple):
    """Somebody who wants something of the API: ``place`` of the job, or how many were submitted."""

    wish: str
    place: int = 0
    point: int = NOWHERE
    is_done: bool = False


def opened(job: str, attempt: int, seq: int, said: int, reason: str) -> Stream:
    """A job whose attempt was opened; with a ``reason`` its end was asked for before."""
    kind = EventKind.CANCELLED if reason else EventKind.STARTED
    doing = Doing("end" if reason else "say", (job, attempt, seq + 1, kind.value))
    return Stream(job, attempt, seq, said, doing)


def after(
    token: str, stream: Stream, is_taken: bool, tokens: int, is_stopped: bool
) -> Stream | None:
    """The stream after an answer; ``None`` when the job is out of the worker's hands."""
    was = stream.doing
    if is_taken and was.name == "say":
        is_token = was.args[3] == EventKind.CHUNK
        stream = stream._replace(seq=stream.seq + 1, said=stream.said + is_token)
    doing = _next(token, stream, was, is_taken, tokens, is_stopped)
    return stream._replace(doing=doing, point=NOWHERE) if doing is not None else None


def _next(
    token: str, stream: Stream, was: Doing, is_taken: bool, tokens: int, is_stopped: bool
) -> Doing | None:
    if was.name == "close":
        return None
    if was.name == "end" or (was.name == "say" and not is_taken):
        return Doing("close", (token, stream.job))
    if was.name == "say" and was.args[3] == EventKind.STARTED:
        return Doing("begin", (token, stream.job))
    if is_stopped:
        return _end(stream, EventKind.CANCELLED)
    if stream.said < tokens:
        return Doing("say", (stream.job, stream.attempt, stream.seq + 1, EventKind.CHUNK.value))
    return _end(stream, EventKind.FINISHED)


def _end(stream: Stream, kind: EventKind) -> Doing:
    return Doing("end", (stream.job, stream.attempt, stream.seq + 1, kind.value))
