"""The processes of the world: what is known of each besides its place in a program."""

from __future__ import annotations

from typing import NamedTuple

from jobs.contract.events import EventKind

NOWHERE = -1


class Supervisor(NamedTuple):
    """``mode``: idle (runs nothing), runs (``worker``), dead. ``suspects``: of its worker's death,
    once they were looked for. ``holds``: as far as it knows the model is its own."""

    mode: str = "idle"
    worker: int = NOWHERE
    point: int = NOWHERE
    suspects: frozenset[str] | None = None
    holds: bool = False


class Consumer(NamedTuple):
    """The thread of a worker that takes jobs of one queue, between two rounds or in one. It looks
    for what it was given without knowing if ``is_unsure``; ``rescued``: what it has found so.

    ``num_takes``: that it has sent, where those that were answered count as one.
    """

    point: int = NOWHERE
    is_unsure: bool = False
    rescued: tuple[str, ...] = ()
    num_takes: int = 0

    @property
    def is_at_rest(self) -> bool:
        return self._replace(num_takes=0) == Consumer()


class Opened(NamedTuple):
    """An attempt that a worker has opened; ``kinds``: the events that wait in its outbox."""

    job: str
    attempt: int
    seq: int
    said: int
    kinds: tuple[str, ...]
    task: str


class Round(NamedTuple):
    """What came of a look into the queue; ``exit_code``: why the worker begins to end."""

    consumer: Consumer
    opened: Opened | None = None
    exit_code: int | None = None


class Sent(NamedTuple):
    """What came of events that were sent. ``is_end``: of the terminal one, if there was one."""

    is_refused: bool
    is_end: bool | None
    is_noted: bool  # RQ is to be told that the job runs


class Doing(NamedTuple):
    """What a stream does next: a program and its arguments; nothing without a name."""

    name: str
    args: tuple[str | int | bool | tuple[str, ...], ...] = ()


class Stream(NamedTuple):
    """A job that runs in a worker: its newest event, the tokens said, and what it does now."""

    job: str
    attempt: int
    seq: int
    said: int
    task: str
    doing: Doing
    point: int = NOWHERE
    is_begun: bool = False  # in RQ's records

    @property
    def has_slot(self) -> bool:
        """It still generates: once the last token is made the slot is free."""
        if self.task != "mgs.generate":
            return False
        return self.doing.name in ("send", "begin") and not self._is_ending

    @property
    def _is_ending(self) -> bool:
        return self.doing.name == "send" and _is_terminal(self.doing.args[-1])


class Worker(NamedTuple):
    """``mode``: unborn, live, told (to stop), dead (with ``code``, not settled yet), gone.

    ``desired`` and ``load_job`` are what it was started for; once ``is_ready`` it takes
    generations.
    """

    mode: str = "unborn"
    owner: int = NOWHERE
    code: int = 0
    gen: Consumer = Consumer()
    ctl: Consumer = Consumer()
    streams: tuple[Stream, ...] = ()
    stops: frozenset[str] = frozenset()
    desired: str = ""
    load_job: str = ""
    is_ready: bool = True

    @property
    def is_alive(self) -> bool:
        return self.mode in ("live", "told")

    @property
    def is_at_rest(self) -> bool:
        """Nothing is in its hands, and it owes nobody a recovery."""
        if not self.is_alive:
            return self.mode != "dead"
        return self.gen.is_at_rest and self.ctl.is_at_rest and not self.streams

    @property
    def num_slots_taken(self) -> int:
        return sum(stream.has_slot for stream in self.streams)


UNBORN = Worker()
GONE = Worker("gone")


class Client(NamedTuple):
    """Somebody who wants something of the API: ``place`` of the job, or how often it was done."""

    wish: str
    place: int = 0
    point: int = NOWHERE
    is_done: bool = False


def stream_of(opened: Opened) -> Stream:
    """A job whose attempt was opened; what waits in its outbox goes first."""
    job, attempt, seq, said, kinds, task = opened
    return Stream(job, attempt, seq, said, task, _send(job, attempt, seq, kinds))


def after(stream: Stream, sent: Sent | None, tokens: int, is_stopped: bool) -> Stream | None:
    """The stream after an answer; ``None`` when the job is out of the worker's hands."""
    was = stream.doing
    if was.name in ("close", "drop"):
        return None
    if was.name == "begin":
        stream = stream._replace(is_begun=True)
    elif sent is not None and not sent.is_refused:
        kinds = was.args[-1]
        assert isinstance(kinds, tuple)
        said = stream.said + (EventKind.CHUNK in kinds)
        stream = stream._replace(seq=stream.seq + len(kinds), said=said)
    doing = _next(stream, was, sent, tokens, is_stopped)
    return stream._replace(doing=doing, point=NOWHERE)


def _next(stream: Stream, was: Doing, sent: Sent | None, tokens: int, is_stopped: bool) -> Doing:
    job = stream.job
    if sent is not None and sent.is_refused:
        return Doing("drop", (job, stream.is_begun))
    if sent is not None and sent.is_end is not None:
        kinds = was.args[-1]
        assert isinstance(kinds, tuple)
        return Doing("close", (job, kinds[-1], sent.is_end, stream.is_begun))
    if sent is not None and sent.is_noted:
        return Doing("begin", (job,))
    if stream.task == "mgs.unload":
        return Doing("")  # in hand until the process ends
    if is_stopped:
        kind = EventKind.CANCELLED
    else:
        kind = EventKind.CHUNK if stream.said < tokens else EventKind.FINISHED
    return _send(job, stream.attempt, stream.seq, (kind.value,))


def _send(job: str, attempt: int, seq: int, kinds: tuple[str, ...]) -> Doing:
    return Doing("send", (job, attempt, seq, kinds))


def _is_terminal(kinds: object) -> bool:
    assert isinstance(kinds, tuple)
    return kinds[-1] not in (EventKind.STARTED, EventKind.CHUNK)
