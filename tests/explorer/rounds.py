"""One round of a consumer: a take, and the admission of the job that it has got."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from rq.exceptions import StopRequested

from jobs.contract.errors import JobError
from jobs.contract.events import EventKind
from jobs.contract.records import WorkerState
from jobs.contract.requests import Task
from jobs.storage.event_log import read_log
from tests.explorer.actors import IDLE, Consumer, Opened, RoundResult
from tests.explorer.fixtures import Fixtures
from tests.explorer.state_fields import CONTROL, QUEUES
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.runtime.admission import Admission
from workers.runtime.lane import Lane
from workers.runtime.worker import ModelWorker


class _RoundOver(BaseException):
    """The consumer has begun its next round."""


class Round:
    """One take of a consumer, and the admission of the job that it has got."""

    def __init__(
        self,
        fixtures: Fixtures,
        consumer: QueueConsumer,
        before: Consumer,
        load_job: str,
        *,
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

    def run(self) -> RoundResult:
        """Run the round to its end."""
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


def _publisher() -> Any:
    """Collects outboxes with events."""
    return SimpleNamespace(lock=threading.Lock(), dirty={}, notify=lambda is_urgent=True: None)
