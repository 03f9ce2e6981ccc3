"""What workers do: each public function here is a program, called as its caller calls.

The consumers' rounds, the publisher and the books are the product's own; the engine is none: it
says one token at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rq.exceptions import StopRequested
from rq.executions import Execution

from jobs.contract.errors import ErrorInfo, JobError
from jobs.contract.events import Event, EventKind
from jobs.contract.records import WorkerState
from jobs.storage.event_log import read_log
from tests.explorer.actors import NOWHERE, Consumer, Opened, Round, Sent
from tests.explorer.client import Request
from tests.explorer.parts import Parts, worker_name
from tests.explorer.points import NOW_S
from tests.explorer.sights import CONTROL, QUEUE
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob
from workers.runtime.admission import Admission
from workers.runtime.worker import ModelWorker

IN_HAND = Request(((b"IN-HAND",),))
"""Asked of the world instead of Redis: the jobs in the worker's hands at this moment."""


class WorkerPrograms:
    """See ``Parts``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._consumers: dict[str, QueueConsumer] = {}
        self._round: _Round | None = None  # the one that runs now

    # A consumer: one look into its queue, and what comes of it.

    def take(self, token: str, owner: str, consumer: Consumer, in_hand: tuple[str, ...]) -> Round:
        """The generations' consumer. ``in_hand``: what the worker has as the round begins."""
        found = self._consumer(token, "gen", owner, in_hand)
        return _Round(self._parts, found, consumer, "", True).run(self)

    def take_control(
        self,
        token: str,
        owner: str,
        consumer: Consumer,
        in_hand: tuple[str, ...],
        desired: str,
        load_job: str,
        is_ready: bool,
    ) -> Round:
        """The control consumer of a worker that was started for that desired model and load job."""
        found = self._consumer(token, "ctl", owner, in_hand)
        found._meant = [load_job, f"unload-{desired}"]
        found._is_only_meant = lambda: not is_ready
        return _Round(self._parts, found, consumer, load_job, is_ready).run(self)

    # The publisher.

    def send(self, job: str, attempt: int, seq: int, kinds: tuple[str, ...]) -> Sent:
        """Send what is in the job's outbox."""
        refused: list[str] = []
        started: list[str] = []
        ended: list[bool] = []
        publisher = Publisher(
            self._parts.writer,
            refused.append,
            lambda event, is_end: ended.append(is_end),
            started.append,
        )
        outbox = Outbox(publisher, job, attempt, seq)
        for kind in kinds:
            _SAY[kind](outbox)
        publisher._send(publisher._take())
        publisher._note_replies()
        return Sent(bool(refused), ended[0] if ended else None, bool(started))

    # The books.

    def begin(self, token: str, consumer: str, job: str) -> str:
        """Note in RQ that the job runs."""
        books = self._books(token, consumer, job, is_begun=False)
        books._actions.put(lambda: books._begin(job))  # as when its delay is over
        return _done(books)

    def close(
        self, token: str, consumer: str, job: str, kind: str, is_end: bool, is_begun: bool
    ) -> str:
        """Let go of a job that has ended."""
        books = self._books(token, consumer, job, is_begun=is_begun)
        error = None if kind == EventKind.FINISHED else ErrorInfo("job_cancelled", "enough")
        event = Event(job=job, attempt=1, seq=1, kind=EventKind(kind), t=NOW_S, error=error)
        books.close(event, is_end=is_end)
        return _done(books)

    def drop(self, token: str, consumer: str, job: str, is_begun: bool) -> str:
        """Let go of a job that is somebody else's by now."""
        books = self._books(token, consumer, job, is_begun=is_begun)
        books.drop(job)
        return _done(books)

    def _books(self, token: str, consumer_name: str, job_id: str, *, is_begun: bool) -> Bookkeeper:
        books, consumer = Bookkeeper(), self._consumer(token, consumer_name)
        job = consumer.job_class.fetch(job_id, consumer.connection, consumer.serializer)
        books.take(consumer, job)
        if is_begun:
            execution = Execution("an execution", job_id, consumer.connection, consumer.name)
            execution._job = job
            consumer.executions[execution.id] = books._open_jobs[job_id].execution = execution
            consumer._is_noted_busy = True
        return books

    def _consumer(
        self, token: str, kind: str, owner: str = "", in_hand: tuple[str, ...] = ()
    ) -> QueueConsumer:
        """A worker's consumer, as if new."""
        name = worker_name(token, kind)
        if name not in self._consumers:
            self._consumers[name] = self._new_consumer(name, QUEUE if kind == "gen" else CONTROL)
        consumer = self._consumers[name]
        consumer._owner = owner
        consumer.in_hand = Hands(self._parts.consumer, in_hand)
        consumer.executions.clear()
        consumer._is_noted_busy = False
        return consumer

    def _new_consumer(self, name: str, queue_name: str) -> QueueConsumer:
        with patch.object(QueueConsumer, "_set_ip_address"):
            return QueueConsumer(
                queue_name,
                name,
                self._parts.consumer,
                lambda: self._current.has_room(),
                lambda job: self._current.admit(job),
                lambda job_id: self._current.refuse(job_id),
                lambda job_id, reason: None,
            )

    @property
    def _current(self) -> _Round:
        assert self._round is not None
        return self._round


class _IsOver(BaseException):
    """The consumer comes to its next look into the queue."""


class _Round:
    """One look of a consumer into its queue, and the admission of the job that it has found."""

    def __init__(
        self, parts: Parts, consumer: QueueConsumer, before: Consumer, load_job: str, is_ready: bool
    ) -> None:
        self._consumer = consumer
        consumer._must_rescue = before.is_unsure
        consumer._rescued = list(before.rescued)
        consumer._num_takes = before.num_takes
        self._before = before
        self._parts = parts
        self._said = 0
        self._exit_code: int | None = None
        self._num_looks = 0
        self._worker = self._new_worker(load_job, is_ready)

    def run(self, programs: WorkerPrograms) -> Round:
        """To the end."""
        programs._round = self
        try:
            job, found = self._consumer.dequeue_job_and_maintain_ttl(None)
            self._consumer.execute_job(job, found)
        except (_IsOver, StopRequested):
            pass
        opened = self._opened()
        assert self._consumer.in_hand <= ({opened.job} if opened is not None else set())
        return Round(self._after(), opened, self._exit_code)

    def _after(self) -> Consumer:
        """A take that was answered is over: the next may have its number."""
        consumer = self._consumer
        num_takes = consumer._num_takes if consumer._must_rescue else self._before.num_takes
        return Consumer(NOWHERE, consumer._must_rescue, tuple(consumer._rescued), num_takes)

    # What the consumer calls.

    def has_room(self) -> bool:
        self._num_looks += 1
        if self._num_looks > 1:
            raise _IsOver
        return not self._is_control or ModelWorker._may_take_control(self._worker)

    def admit(self, job: QueuedJob) -> None:
        if self._is_control:
            ModelWorker._admit_control(self._worker, job)
        else:
            ModelWorker._admit_generation(self._worker, job)

    def refuse(self, job_id: str) -> bool:
        return self._admission.refuse(self._consumer, job_id)

    # A worker with nothing but what admission needs.

    @property
    def _is_control(self) -> bool:
        return self._consumer.queue.name == CONTROL

    def _new_worker(self, load_job: str, is_ready: bool) -> Any:
        self._publisher = _publisher()
        self._admission = Admission(
            self._parts.admission, self._publisher, Bookkeeper(), lambda job_id, reason: None
        )
        state = WorkerState.READY if is_ready else WorkerState.STARTING
        one: Any = ModelWorker.__new__(ModelWorker)
        one._gen = one._ctl = self._consumer
        one._redis = self._parts.api
        one._load_job = load_job
        one._gen_admission = one._ctl_admission = self._admission
        one._report = SimpleNamespace(state=state)
        one._jobs = SimpleNamespace(generate=self._generate)
        one._load = lambda request, outbox: None
        one.request_exit = self._request_exit
        return one

    def _request_exit(self, code: int, error: JobError | None, grace_s: float = 0.0) -> None:
        self._exit_code = int(code)

    def _generate(self, attempt: Attempt, outbox: Outbox) -> None:
        """In place of ``ModelJobs``: read what earlier attempts said, and begin."""
        events = read_log(self._parts.api, attempt.job_id) if attempt.seq else []
        self._said = sum(event.kind is EventKind.CHUNK for event in events)
        outbox.started()
        if self._said == self._parts.jobs[attempt.job_id]:  # all but the last word
            outbox.finish()

    def _opened(self) -> Opened | None:
        dirty = list(self._publisher.dirty.values())
        if not dirty:
            return None
        (outbox,) = dirty
        kinds = tuple(event.kind.value for event in outbox._pending)
        task = "mgs.generate"
        if self._is_control:
            task = "mgs.load" if outbox.job_id == self._worker._load_job else "mgs.unload"
        return Opened(outbox.job_id, outbox.attempt, outbox._seq, self._said, kinds, task)


class Hands(set[str]):
    """The jobs that a consumer has taken in this round; what it had before only the world knows.

    A take names what the worker had as the round began: something of it may have ended since, and
    the round then only finds less.
    """

    def __init__(self, redis: Any, known: tuple[str, ...]) -> None:
        super().__init__()
        self._redis = redis
        self._known = known

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._known, *super().__iter__()}))

    def __rsub__(self, other: Any) -> set[str]:
        (known,) = self._redis.ask(IN_HAND)
        return {job for job in other if job not in self and job.encode() not in known}


def _publisher() -> Any:
    """Keeps what is written to outboxes."""
    return SimpleNamespace(lock=threading.Lock(), dirty={}, notify=lambda is_urgent=True: None)


def _done(books: Bookkeeper) -> str:
    """Do what is to be written, here and now."""
    books._actions.put(None)
    books.run()
    return "done"


_SAY: dict[str, Callable[[Outbox], None]] = {
    EventKind.STARTED: lambda outbox: outbox.started(),
    EventKind.CHUNK: lambda outbox: outbox.chunk(0, 1, "t"),
    EventKind.FINISHED: lambda outbox: outbox.finish(),
    EventKind.CANCELLED: lambda outbox: outbox.cancel(JobError("enough")),
    EventKind.FAILED: lambda outbox: outbox.fail(JobError("broken")),
}
