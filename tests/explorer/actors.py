"""The processes of the world: the state of each besides its position in a program."""

from __future__ import annotations

from typing import NamedTuple

from jobs.contract.events import EventKind

IDLE = -1
"""Position of a process that runs no program."""
NO_INDEX = -1
"""Index of a worker or supervisor that there is not."""


class Supervisor(NamedTuple):
    """``mode``: idle (runs no worker), running (``worker``), dead. ``suspects``: of its worker's
    death, once they were looked for. ``is_owner``: by its own records, it owns the model.
    ``is_closed``: its worker takes no further job."""

    mode: str = "idle"
    worker: int = NO_INDEX
    position: int = IDLE
    suspects: frozenset[str] | None = None
    is_owner: bool = False
    is_closed: bool = False


class Consumer(NamedTuple):
    """The thread of a worker that takes jobs of one queue, between two rounds or in one.

    ``is_unsure``: the reply to a take was lost, so that it must look for jobs that Redis may have
    given it; ``rescued``: those that it found. ``num_takes``: takes sent; all takes that were
    answered count as one.
    """

    position: int = IDLE
    is_unsure: bool = False
    rescued: tuple[str, ...] = ()
    num_takes: int = 0

    @property
    def is_idle(self) -> bool:
        return self._replace(num_takes=0) == Consumer()


class Opened(NamedTuple):
    """An attempt that a worker has opened; ``kinds``: the events in its outbox. ``num_tokens``:
    those that earlier attempts generated. ``lane``: of the worker."""

    job: str
    attempt: int
    seq: int
    num_tokens: int
    kinds: tuple[str, ...]
    task: str
    lane: str


class RoundResult(NamedTuple):
    """Result of one round of a consumer. ``exit_code``: set if the worker begins to stop."""

    consumer: Consumer
    opened: Opened | None = None
    exit_code: int | None = None


class SendResult(NamedTuple):
    """Result of sending events. ``is_end``: whether the terminal event, if there was one, ended
    the job. ``is_noted``: the job is to be recorded as running in RQ."""

    is_refused: bool
    is_end: bool | None
    is_noted: bool


class Action(NamedTuple):
    """The next action of a stream: a program and its arguments; no action without a name."""

    name: str
    args: tuple[str | int | bool | tuple[str, ...], ...] = ()


class Stream(NamedTuple):
    """A job that runs in a worker: its newest event, the number of tokens generated, and its
    current action."""

    job: str
    attempt: int
    seq: int
    num_tokens: int
    task: str
    lane: str
    action: Action
    position: int = IDLE
    is_begun: bool = False  # in RQ's records

    @property
    def has_slot(self) -> bool:
        """It still generates; the slot is freed with the last token."""
        if self.task != "mgs.generate":
            return False
        return self.action.name in ("send", "begin") and not self._is_ending

    @property
    def _is_ending(self) -> bool:
        return self.action.name == "send" and _is_terminal(self.action.args[-1])


class Worker(NamedTuple):
    """``mode``: not started, running, stopping, dead (with ``code``), gone (and settled).

    ``used``: by callers, not yet reported with a take. ``desired`` and ``load_job``: the desired
    model's uid and the load job that it was started for. It takes generations once ``is_ready``.
    """

    mode: str = "not started"
    owner: int = NO_INDEX
    code: int = 0
    gen: Consumer = Consumer()
    batch: Consumer = Consumer()
    ctl: Consumer = Consumer()
    streams: tuple[Stream, ...] = ()
    stops: frozenset[str] = frozenset()
    used: tuple[tuple[str, float], ...] = ()
    desired: str = ""
    load_job: str = ""
    is_ready: bool = True

    @property
    def is_alive(self) -> bool:
        return self.mode in ("running", "stopping")

    @property
    def is_idle(self) -> bool:
        """It has no jobs, and no recovery of its jobs is outstanding."""
        if not self.is_alive:
            return self.mode != "dead"
        is_idle = self.gen.is_idle and self.batch.is_idle and self.ctl.is_idle
        return is_idle and not self.streams

    @property
    def is_taking(self) -> bool:
        """One of its consumers of generations is in a round."""
        return self.gen.position != IDLE or self.batch.position != IDLE

    def has_room(self, lane: str, slots: int) -> bool:
        """Interactive jobs enter as if no batch job ran. ``slots``: those of the worker."""
        lanes = ("gen",) if lane == "gen" else ("gen", "batch")
        return sum(one.has_slot for one in self.streams if one.lane in lanes) < slots


NOT_STARTED = Worker()
GONE = Worker("gone")


class Client(NamedTuple):
    """A client of the API, by the ``kind`` of its requests. ``number``: index of its job, or the
    number of requests done. ``phase``: what the runner of a line does next."""

    kind: str
    number: int = 0
    position: int = IDLE
    is_done: bool = False
    phase: str = ""

    @property
    def has_jobs(self) -> bool:
        """It submits jobs."""
        return self.kind in ("submit", "line")


def stream_of(opened: Opened) -> Stream:
    """A job whose attempt was opened; first it sends the events in its outbox."""
    job, attempt, seq, num_tokens, kinds, task, lane = opened
    return Stream(job, attempt, seq, num_tokens, task, lane, _send(job, attempt, seq, kinds))


def handed_back(stream: Stream) -> Stream | None:
    """The stream when it gives way instead of generating its next token, if it may."""
    if not stream.has_slot or stream.action.name != "send":
        return None
    if stream.action.args[-1] == (EventKind.STARTED,):
        return None  # the same as giving way after it was sent
    args = (stream.job, stream.attempt, stream.seq, stream.is_begun)
    return stream._replace(action=Action("hand_back", args), position=IDLE)


def after_hand_back(stream: Stream, is_cancelled: bool) -> Stream | None:
    """The stream after its hand back; ``None`` if it is on its queue."""
    if not is_cancelled:
        return None
    action = _send(stream.job, stream.attempt, stream.seq, (EventKind.CANCELLED.value,))
    return stream._replace(action=action, position=IDLE, is_begun=False)


def after(stream: Stream, sent: SendResult | None, tokens: int, is_stopped: bool) -> Stream | None:
    """The stream after its action has ended; ``None`` when the worker has released the job."""
    previous = stream.action
    if previous.name in ("close", "drop"):
        return None
    if previous.name == "begin":
        stream = stream._replace(is_begun=True)
    elif sent is not None and not sent.is_refused:
        kinds = previous.args[-1]
        assert isinstance(kinds, tuple)
        num_tokens = stream.num_tokens + (EventKind.CHUNK in kinds)
        stream = stream._replace(seq=stream.seq + len(kinds), num_tokens=num_tokens)
    action = _next(stream, previous, sent, tokens, is_stopped)
    return stream._replace(action=action, position=IDLE)


def _next(
    stream: Stream, previous: Action, sent: SendResult | None, tokens: int, is_stopped: bool
) -> Action:
    job = stream.job
    if sent is not None and sent.is_refused:
        return Action("drop", (job, stream.is_begun))
    if sent is not None and sent.is_end is not None:
        kinds = previous.args[-1]
        assert isinstance(kinds, tuple)
        return Action("close", (job, kinds[-1], sent.is_end, stream.is_begun))
    if sent is not None and sent.is_noted:
        return Action("begin", (job,))
    if stream.task == "mgs.unload":
        return Action("")  # the worker keeps the job until it ends
    if is_stopped:
        kind = EventKind.CANCELLED
    else:
        kind = EventKind.CHUNK if stream.num_tokens < tokens else EventKind.FINISHED
    return _send(job, stream.attempt, stream.seq, (kind.value,))


def _send(job: str, attempt: int, seq: int, kinds: tuple[str, ...]) -> Action:
    return Action("send", (job, attempt, seq, kinds))


def _is_terminal(kinds: object) -> bool:
    assert isinstance(kinds, tuple)
    return kinds[-1] not in (EventKind.STARTED, EventKind.CHUNK)
