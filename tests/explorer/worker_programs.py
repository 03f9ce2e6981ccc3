"""Programs of workers: each public method calls the product as its own callers do.

The consumers' rounds, the publisher and the bookkeeper are the product's own. The engine is
modelled: it generates one token per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from rq.executions import Execution

from jobs.contract.errors import ErrorInfo, JobError
from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobClass
from tests.explorer.actors import Consumer, RoundResult, SendResult
from tests.explorer.fixtures import Fixtures, worker_name
from tests.explorer.positions import NOW_S
from tests.explorer.rounds import Round
from tests.explorer.state_fields import QUEUES
from tests.explorer.taken_jobs import GivenUse, TakenJobs
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.taking import Order
from workers.runtime.worker import ModelWorker
from workers.scheduling.fair_use import Use
from workers.scheduling.slots import SlotLimiter


class WorkerPrograms:
    """See ``Fixtures``."""

    def __init__(self, fixtures: Fixtures) -> None:
        self._fixtures = fixtures
        self._consumers: dict[str, QueueConsumer] = {}
        self._round: Round | None = None  # the current one
        self._use = GivenUse(Use())

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
        num_taking: int,
    ) -> RoundResult:
        """A round of a consumer of generations. ``in_hand``: the worker's jobs as it begins;
        ``used``, ``running`` and ``num_taking``: see ``Use``."""
        self._use.use = Use(dict(used), dict(running), num_taking)
        found = self._consumer(token, lane, owner, in_hand)
        self._round = Round(self._fixtures, found, consumer, "", is_ready=True)
        return self._round.run()

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
        self._round = Round(self._fixtures, found, consumer, load_job, is_ready=is_ready)
        return self._round.run()

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
        consumer._is_noted_busy = consumer._is_empty = False
        return consumer

    def _new_consumer(self, name: str, lane: str) -> QueueConsumer:
        classes: dict[str, JobClass] = {"gen": "interactive", "batch": "batch"}
        order = Order(classes[lane], use=self._use) if lane in classes else None
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
    def _current(self) -> Round:
        assert self._round is not None
        return self._round


def _unexpected(*args: object) -> None:
    raise AssertionError(f"no event was sent: {args}")


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
