"""A lane: one queue of the model, the thread that consumes it, and the admission of its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.contract.records import JobClass
from jobs.contract.requests import Task
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import connect
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob
from workers.rq_bridge.taking import Order
from workers.runtime.admission import Admission
from workers.scheduling.sharing import Sharing

Start = Callable[[Attempt, Outbox], None]


class Lane:
    """Admits the jobs of one queue: ``start(attempt, outbox)`` is called for each, on its thread.

    ``expected``: the task of the jobs (``None``: any but a generation).
    """

    def __init__(self, admission: Admission, expected: Task | None, start: Start) -> None:
        self.admission = admission
        self.consumer: QueueConsumer
        self._expected = expected
        self._start = start

    def admit(self, job: QueuedJob) -> None:
        """The consumer's ``admit``."""
        self.admission.admit(self.consumer, job, self._expected, self._start)

    def refuse(self, job_id: str) -> bool:
        """The consumer's ``refuse``."""
        return self.admission.refuse(self.consumer, job_id)

    def start_thread(self, work: Callable[[QueueConsumer], None], name: str) -> None:
        """Run ``work(consumer)`` on a thread of its own."""
        threading.Thread(target=work, args=(self.consumer,), name=name, daemon=True).start()


@dataclass(frozen=True, slots=True)
class Lanes:
    """Makes the lanes of one worker, from the parts that they share.

    ``on_stop(job_id, reason)`` and ``on_yield(job_id)`` handle commands to the consumers.
    """

    settings: Settings
    slug: str
    token: str
    owner: str
    publisher: Publisher
    books: Bookkeeper
    sharing: Sharing
    on_stop: Callable[[str, str], None]
    on_yield: Callable[[str], None]

    def generation(self, job_class: JobClass, start: Start) -> Lane:
        """The lane of the generations of a class."""
        slots, is_batch = self.sharing.slots, job_class == "batch"
        settings = self.settings
        return self._lane(
            (names.batch_queue if is_batch else names.generation_queue)(self.slug),
            "batch" if is_batch else "gen",
            Task.GENERATE,
            start,
            slots.wait_batch if is_batch else slots.wait,
            order=Order(
                job_class, settings.aging_s, settings.fair, self.sharing.fair_use.of(job_class)
            ),
            on_idle=slots.note_batch_idle if is_batch else slots.note_interactive_idle,
        )

    def control(
        self,
        start: Start,
        may_take: Callable[[], bool],
        meant: Sequence[str],
        is_only_meant: Callable[[], bool],
    ) -> Lane:
        """The lane of all other jobs, see ``Taker``."""
        return self._lane(
            names.control_queue(self.slug),
            "ctl",
            None,
            start,
            may_take,
            meant=meant,
            is_only_meant=is_only_meant,
        )

    def _lane(
        self,
        queue_name: str,
        kind: str,
        expected: Task | None,
        start: Start,
        may_take: Callable[[], bool],
        **of_consumer: Any,
    ) -> Lane:
        url = self.settings.effective_redis_url
        admission = Admission(connect(url, retries=0), self.publisher, self.books, self.on_stop)
        lane = Lane(admission, expected, start)
        lane.consumer = QueueConsumer(
            queue_name,
            names.worker_name(self.slug, kind, self.token),
            connect(url, retries=0),  # a repeated take could take a second job
            may_take,
            lane.admit,
            lane.refuse,
            self.on_stop,
            self.owner,
            on_yield=self.on_yield,
            **of_consumer,
        )
        return lane
