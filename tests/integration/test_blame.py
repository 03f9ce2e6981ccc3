"""Which jobs a worker's death is blamed on, and who waits for whom in the next worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from jobs.contract.errors import WorkerLostError
from jobs.contract.events import EventKind
from jobs.contract.records import JobStatus
from jobs.storage.event_log import EventWriter
from jobs.storage.store import JobStore
from tests.helpers.queues import waiting
from tests.helpers.samples import event, submission
from tests.helpers.taking import open_attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.runtime.engine_thread import EngineThread
from workers.runtime.worker import ModelWorker
from workers.scheduling.slots import SlotLimiter
from workers.supervision.recovery import Recovery

WORKER = "0.gen.dead"
LOST = WorkerLostError("it died")


def taken(store: JobStore, job_id: str = "", *, has_spoken: bool) -> str:
    """A job in the worker's hands, a new one or that one again."""
    if not job_id:
        new = submission()
        store.submit(new)
        job_id = new.job_id
    attempt = open_attempt(store.redis, WORKER, job_id)
    kinds = [EventKind.STARTED, *[EventKind.CHUNK] * has_spoken]
    said = [
        event(kind, attempt.seq + place, attempt.attempt, job_id)
        for place, kind in enumerate(kinds, 1)
    ]
    assert all(store.writer.append(said))
    return job_id


def settle_jobs_of(recovery: Recovery) -> None:
    suspects = recovery.suspects("0", [WORKER])
    recovery.settle_jobs_of("0", [WORKER], LOST, has_crashed=True, suspects=suspects)


def deaths(store: JobStore, *job_ids: str) -> list[int]:
    return [store.record(job_id).deaths for job_id in job_ids]


def test_of_the_jobs_in_hand_the_silent_ones_are_suspected(
    store: JobStore, recovery: Recovery
) -> None:
    silent = [taken(store, has_spoken=False) for _ in range(2)]
    speakers = [taken(store, has_spoken=True) for _ in range(2)]
    settle_jobs_of(recovery)
    assert deaths(store, *silent, *speakers) == [1, 1, 0, 0]
    assert waiting(store) == [*speakers, *silent]


def test_when_all_have_spoken_all_are_suspected(store: JobStore, recovery: Recovery) -> None:
    job_ids = [taken(store, has_spoken=True) for _ in range(3)]
    settle_jobs_of(recovery)
    assert deaths(store, *job_ids) == [1, 1, 1]
    assert waiting(store) == job_ids


def test_a_line_that_was_just_taken_up_again_is_not_suspected(
    store: JobStore, recovery: Recovery
) -> None:
    """It gave way twice, has said something before, and reads its prompt again."""
    line = taken(store, has_spoken=True)
    for _ in range(2):
        assert store.return_to_queue(store.record(line), WORKER, counted_as=None)
        taken(store, line, has_spoken=False)
    killer = taken(store, has_spoken=False)
    settle_jobs_of(recovery)
    assert deaths(store, line, killer) == [0, 1]


def test_when_all_others_have_spoken_one_just_taken_up_again_is_suspected_with_them(
    store: JobStore, recovery: Recovery
) -> None:
    line = taken(store, has_spoken=True)
    assert store.return_to_queue(store.record(line), WORKER, counted_as=None)
    taken(store, line, has_spoken=False)
    other = taken(store, has_spoken=True)
    settle_jobs_of(recovery)
    assert deaths(store, line, other) == [1, 1]


def test_a_late_killer_that_was_suspected_before_is_suspected_again(
    store: JobStore, recovery: Recovery
) -> None:
    """What it said before its first death is no alibi for the second."""
    killer, neighbour = (taken(store, has_spoken=True) for _ in range(2))
    settle_jobs_of(recovery)
    taken(store, neighbour, has_spoken=True)
    taken(store, killer, has_spoken=False)
    settle_jobs_of(recovery)
    assert store.record(killer).error_code == "worker_lost"
    assert store.record(neighbour).status is JobStatus.QUEUED


def test_a_neighbour_at_both_deaths_goes_on_once_it_has_spoken_again(
    store: JobStore, recovery: Recovery
) -> None:
    killer, neighbour = (taken(store, has_spoken=False) for _ in range(2))
    settle_jobs_of(recovery)
    taken(store, neighbour, has_spoken=True)
    taken(store, killer, has_spoken=False)
    settle_jobs_of(recovery)
    assert store.record(killer).error_code == "worker_lost"
    assert store.record(neighbour).status is JobStatus.QUEUED
    assert waiting(store) == [neighbour]


def test_what_an_earlier_attempt_said_clears_nobody(store: JobStore, recovery: Recovery) -> None:
    job_id = taken(store, has_spoken=True)
    neighbour = taken(store, has_spoken=True)
    settle_jobs_of(recovery)
    taken(store, neighbour, has_spoken=True)
    taken(store, job_id, has_spoken=False)
    settle_jobs_of(recovery)
    assert store.record(job_id).status is JobStatus.FAILED
    assert store.record(neighbour).status is JobStatus.QUEUED


class Holder:
    """A job that holds the slots of a worker, and what publishes its events."""

    def __init__(self, store: JobStore) -> None:
        self.job_id = taken(store, has_spoken=False)
        self.slots = SlotLimiter()
        self.slots.open(8)
        self.slots.hold(self.job_id)
        worker = ModelWorker.__new__(ModelWorker)
        worker._slots, worker._books = self.slots, Bookkeeper()
        worker._engine = cast(EngineThread, SimpleNamespace(loop=None))
        self.publisher = Publisher(
            EventWriter(store.redis, 60, 60),
            worker._on_refused,
            worker._on_settled,
            on_written=worker._on_written,
        )
        self.outbox = Outbox(self.publisher, self.job_id, 1, 1)

    def publish(self) -> None:
        """All that is in the outbox."""
        self.publisher.start()
        assert self.publisher.stop(10)


@pytest.mark.parametrize("is_end", [False, True])
def test_the_slots_are_held_until_their_holder_has_spoken_or_ended(
    store: JobStore, is_end: bool
) -> None:
    holder = Holder(store)
    assert not holder.slots.has_room
    if is_end:
        holder.outbox.fail(LOST)
    else:
        holder.outbox.chunk(0, 1, "a word")
        holder.publisher.notify()
    holder.publish()
    assert holder.slots.has_room


def test_a_holder_that_has_only_started_holds_on(store: JobStore) -> None:
    holder = Holder(store)
    holder.outbox.started()
    holder.publish()
    assert not holder.slots.has_room


def test_a_holder_that_is_another_workers_by_now_holds_nobody(store: JobStore) -> None:
    holder = Holder(store)
    open_attempt(store.redis, "0.gen.other", holder.job_id)
    holder.outbox.started()
    holder.publish()
    assert holder.slots.has_room
