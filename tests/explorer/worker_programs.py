"""Programs of workers: each public method calls the product as its own callers do.

The consumers' rounds, the publisher and the bookkeeper are the product's own. The engine is
modelled: it generates one token per step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rq.exceptions import StopRequested
from rq.executions import Execution

from jobs.contract.errors import ErrorInfo, JobError
from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobClass, WorkerState
from jobs.contract.requests import Task
from jobs.storage.event_log import read_log
from tests.explorer.actors import IDLE, Consumer, Opened, RoundResult, SendResult
from tests.explorer.fixtures import Fixtures, worker_name
from tests.explorer.positions import NOW_S
from tests.explorer.state_fields import CONTROL, QUEUES
from tests.explorer.taken_jobs import TakenJobs
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.taking import Order
from workers.runtime.admission import Admission
from workers.runtime.lane import Lane
from workers.runtime.worker import ModelWorker
from workers.scheduling.slots import SlotLimiter


class WorkerPrograms:
    """See ``Fixtures``."""

    def __init__(self, fixtures: Fixtures) -> None:
        self._fixtures = fixtures
        self._consumers: dict[str, QueueConsumer] = {}
        self._round: _Round | None = None  # the current one
        self._use: tuple[dict[str, float], dict[str, int]] = {}, {}

    # Consumers: one round each.

    def take(
        self,
        token: str,
        lane: str,
        owner: str,
        consumer: Consumer,
        in_hand: tuple[str, ...],
        used: tuple[tuple[str, float], ...],
        running: tuple[tuple[str, int], ...],
    ) -> RoundResult:
        """A round of a consumer of generations. ``in_hand``: the worker's jobs as it begins;
        ``used`` and ``running``: see ``Order``."""
        self._use = dict(used), dict(running)
        found = self._consumer(token, lane, owner, in_hand)
        return _Round(self._fixtures, found, consumer, "", True).run(self)

    def take_control(
        self,
        token: str,
        owner: str,
        consumer: Consumer,
        in_hand: tuple[str, ...],
        desired: str,
        load_job: str,
        is_ready: bool,
    ) -> RoundResult:
        """A round of the control consumer of a worker started for that model and load job."""
        found = self._consumer(token, "ctl", owner, in_hand)
        found._taker._meant = [load_job, f"unload-{desired}"]
        found._taker._is_only_meant = lambda: not is_ready
        return _Round(self._fixtures, found, consumer, load_job, is_ready).run(self)

    # The publisher.

    def send(self, job: str, attempt: int, seq: int, kinds: tuple[str, ...]) -> SendResult:
        """Send the events in the job's outbox."""
        refused: list[str] = []
        started: list[str] = []
        ended: list[bool] = []
        publisher = Publisher(
            self._fixtures.writer,
            refused.append,
            lambda event, is_end: ended.append(is_end),
            started.append,
        )
        outbox = Outbox(publisher, job, attempt, seq)
        for kind in kinds:
            _WRITE[kind](outbox)
        events, _ = publisher._take()
        publisher._send(events)
        publisher._note_replies()
        return SendResult(bool(refused), ended[0] if ended else None, bool(started))

    # The bookkeeper.

    def begin(self, token: str, lane: str, job: str) -> str:
        """Record in RQ that the job runs."""
        bookkeeper = self._bookkeeper(token, lane, job, is_begun=False)
        bookkeeper._actions.put(lambda: bookkeeper._begin(job))  # as when its delay is over
        return _run_to_end(bookkeeper)

    def close(
        self, token: str, lane: str, job: str, kind: str, is_end: bool, is_begun: bool
    ) -> str:
        """Release a job that has ended."""
        bookkeeper = self._bookkeeper(token, lane, job, is_begun=is_begun)
        error = None if kind == EventKind.FINISHED else ErrorInfo("job_cancelled", "enough")
        event = Event(job=job, attempt=1, seq=1, kind=EventKind(kind), t=NOW_S, error=error)
        bookkeeper.close(event, is_end=is_end)
        return _run_to_end(bookkeeper)

    def drop(self, token: str, lane: str, job: str, is_begun: bool) -> str:
        """Release a job that another attempt has by now."""
        bookkeeper = self._bookkeeper(token, lane, job, is_begun=is_begun)
        bookkeeper.drop(job)
        return _run_to_end(bookkeeper)

    def hand_back(
        self, token: str, lane: str, job: str, attempt: int, seq: int, is_begun: bool
    ) -> str:
        """Put a running job on its queue again, once its events are sent."""
        bookkeeper = self._bookkeeper(token, lane, job, is_begun=is_begun)
        one: Any = ModelWorker.__new__(ModelWorker)
        one._slots, one._books = SlotLimiter(), bookkeeper
        publisher = Publisher(
            self._fixtures.writer, _unexpected, _unexpected, on_handed_back=one._on_handed_back
        )
        outbox = Outbox(publisher, job, attempt, seq)
        outbox.hand_back()
        events, returning = publisher._take()
        assert not events
        publisher._hand_back(returning)
        _run_to_end(bookkeeper)
        kinds = [event.kind for event in outbox._pending]
        assert kinds in ([], [EventKind.CANCELLED])
        return "cancelled" if kinds else "returned"

    def _bookkeeper(self, token: str, lane: str, job_id: str, *, is_begun: bool) -> Bookkeeper:
        bookkeeper, consumer = Bookkeeper(), self._consumer(token, lane)
        job = consumer.job_class.fetch(job_id, consumer.connection, consumer.serializer)
        bookkeeper.take(consumer, job)
        if is_begun:
            execution = Execution("an execution", job_id, consumer.connection, consumer.name)
            execution._job = job
            consumer.executions[execution.id] = bookkeeper._open_jobs[job_id].execution = execution
            consumer._is_noted_busy = True
        return bookkeeper

    def _consumer(
        self, token: str, lane: str, owner: str = "", in_hand: tuple[str, ...] = ()
    ) -> QueueConsumer:
        """A worker's consumer in its initial state."""
        name = worker_name(token, lane)
        if name not in self._consumers:
            self._consumers[name] = self._new_consumer(name, lane)
        consumer = self._consumers[name]
        consumer._taker._owner = owner
        consumer.in_hand = TakenJobs(self._fixtures.consumer, in_hand)
        consumer.executions.clear()
        consumer._is_noted_busy = False
        return consumer

    def _new_consumer(self, name: str, lane: str) -> QueueConsumer:
        classes: dict[str, JobClass] = {"gen": "interactive", "batch": "batch"}
        order = Order(classes[lane], use=lambda: self._use) if lane in classes else None
        with patch.object(QueueConsumer, "_set_ip_address"):
            return QueueConsumer(
                QUEUES[lane],
                name,
                self._fixtures.consumer,
                lambda: self._current.has_room(),
                lambda job: self._current.lane.admit(job),
                lambda job_id: self._current.lane.refuse(job_id),
                lambda job_id, reason: None,
                order=order,
            )

    @property
    def _current(self) -> _Round:
        assert self._round is not None
        return self._round


class _RoundOver(BaseException):
    """The consumer has begun its next round."""


class _Round:
    """One take of a consumer, and the admission of the job that it has got."""

    def __init__(
        self,
        fixtures: Fixtures,
        consumer: QueueConsumer,
        before: Consumer,
        load_job: str,
        is_ready: bool,
    ) -> None:
        self._consumer = consumer
        consumer._must_rescue = before.is_unsure
        consumer._rescued = list(before.rescued)
        consumer._taker._num_takes = before.num_takes
        self._before = before
        self._fixtures = fixtures
        self._num_tokens = 0
        self._exit_code: int | None = None
        self._num_looks = 0
        self._worker = self._new_worker(load_job, is_ready)
        self.lane = self._new_lane()

    def run(self, programs: WorkerPrograms) -> RoundResult:
        """Run the round to its end."""
        programs._round = self
        try:
            job, found = self._consumer.dequeue_job_and_maintain_ttl(None)
            self._consumer.execute_job(job, found)
        except (_RoundOver, StopRequested):
            pass
        opened = self._opened()
        assert self._consumer.in_hand <= ({opened.job} if opened is not None else set())
        return RoundResult(self._after(), opened, self._exit_code)

    def _after(self) -> Consumer:
        """The consumer after the round. An answered take is not counted: the next may reuse its
        number, which keeps the number of states small."""
        consumer = self._consumer
        sent = consumer._taker._num_takes
        num_takes = sent if consumer._must_rescue else self._before.num_takes
        return Consumer(IDLE, consumer._must_rescue, tuple(consumer._rescued), num_takes)

    # Callbacks of the consumer.

    def has_room(self) -> bool:
        self._num_looks += 1
        if self._num_looks > 1:
            raise _RoundOver
        return not self._is_control or ModelWorker._may_take_control(self._worker)

    # A worker with the parts that admission needs.

    @property
    def _is_control(self) -> bool:
        return self._consumer.queue.name == CONTROL

    def _new_worker(self, load_job: str, is_ready: bool) -> Any:
        state = WorkerState.READY if is_ready else WorkerState.STARTING
        one: Any = ModelWorker.__new__(ModelWorker)
        one._redis = self._fixtures.api
        one._load_job = load_job
        one._report = SimpleNamespace(state=state)
        one._engine = SimpleNamespace(load=lambda request, outbox: None)
        one.request_exit = self._request_exit
        return one

    def _new_lane(self) -> Lane:
        self._publisher = _publisher()
        admission = Admission(
            self._fixtures.admission, self._publisher, Bookkeeper(), lambda job_id, reason: None
        )
        if self._is_control:
            lane = Lane(admission, None, self._worker._dispatch_control)
        else:
            lane = Lane(admission, Task.GENERATE, self._generate)
        lane.consumer = self._consumer
        return lane

    def _request_exit(self, code: int, error: JobError | None, grace_s: float = 0.0) -> None:
        self._exit_code = int(code)

    def _generate(self, attempt: Attempt, outbox: Outbox) -> None:
        """Replaces ``ModelJobs``: count the tokens of earlier attempts, and begin."""
        events = read_log(self._fixtures.api, attempt.job_id) if attempt.seq else []
        self._num_tokens = sum(event.kind is EventKind.CHUNK for event in events)
        outbox.started()
        if (
            self._num_tokens == self._fixtures.jobs[attempt.job_id]
        ):  # only the terminal event is missing
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
        lane = next(lane for lane, queue in QUEUES.items() if queue == self._consumer.queue.name)
        return Opened(
            outbox.job_id, outbox.attempt, outbox._seq, self._num_tokens, kinds, task, lane
        )


def _unexpected(*args: object) -> None:
    raise AssertionError(f"no event was sent: {args}")


def _publisher() -> Any:
    """Collects outboxes with events."""
    return SimpleNamespace(lock=threading.Lock(), dirty={}, notify=lambda is_urgent=True: None)


def _run_to_end(bookkeeper: Bookkeeper) -> str:
    """Carry out the bookkeeper's writes in this thread."""
    bookkeeper._actions.put(None)
    bookkeeper.run()
    return "done"


_WRITE: dict[str, Callable[[Outbox], None]] = {
    EventKind.STARTED: lambda outbox: outbox.started(),
    EventKind.CHUNK: lambda outbox: outbox.chunk(0, 1, "t"),
    EventKind.FINISHED: lambda outbox: outbox.finish(),
    EventKind.CANCELLED: lambda outbox: outbox.cancel(JobError("enough")),
    EventKind.FAILED: lambda outbox: outbox.fail(JobError("broken")),
}
