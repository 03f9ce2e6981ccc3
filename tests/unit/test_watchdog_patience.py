"""How long a worker may be silent; time in which Redis was away does not count."""

from __future__ import annotations

import pytest

from jobs.contract.records import WorkerState, WorkerStatus
from jobs.storage.contact import RedisContact
from tests.helpers.children import killed_child
from tests.helpers.clock import Clock
from workers.supervision.watchdog import Watchdog
from workers.supervision.worker_process import Child


@pytest.fixture
def child() -> Child:
    """Of it only the names count here."""
    return killed_child()


class Ticks:
    """A supervisor's ticks, one each second."""

    def __init__(self, clock: Clock, child: Child) -> None:
        self.clock = clock
        self.child = child
        self.contact = RedisContact(clock, clock)
        self.watchdog = Watchdog(30.0, 120.0, self.contact)

    def first_verdict(
        self,
        seconds: int,
        status: WorkerStatus | None = None,
        others: dict[str, WorkerStatus] | None = None,
    ) -> tuple[int, str] | None:
        """After how many seconds the child has to be killed, and the error's code."""
        for second in range(1, seconds + 1):
            self.clock.now += 1
            self.contact.note_answer()
            own = {} if status is None else {self.child.slug: status}
            self.watchdog.look({self.child.slug}, own | (others or {}))
            reason = self.watchdog.judge(self.child, status)
            if reason is not None:
                return second, reason.code
        return None


@pytest.fixture
def ticks(child: Child, clock: Clock) -> Ticks:
    return Ticks(clock, child)


def status_of(child: Child, state: WorkerState = WorkerState.READY, **fields) -> WorkerStatus:
    return WorkerStatus("0", state, child.pid, "box", child.worker_names, **fields)


def test_a_worker_that_sends_heartbeats_lives(ticks: Ticks, child: Child) -> None:
    assert ticks.first_verdict(200, status_of(child)) is None


def test_a_ready_worker_is_given_up_after_some_seconds_of_silence(
    ticks: Ticks, child: Child
) -> None:
    ticks.first_verdict(3, status_of(child))
    assert ticks.first_verdict(100) == (9, "worker_lost")


@pytest.mark.parametrize("state", [None, WorkerState.STARTING, WorkerState.LOADING])
def test_one_that_starts_or_loads_has_a_minute(
    ticks: Ticks, child: Child, state: WorkerState | None
) -> None:
    ticks.first_verdict(1, status_of(child, state) if state else None)
    assert ticks.first_verdict(100) == (61, "worker_lost")


def test_the_heartbeat_of_another_process_is_none_of_it(ticks: Ticks, child: Child) -> None:
    other = WorkerStatus("0", WorkerState.READY, 1, "box", ["0.gen.other", "0.ctl.other"])
    assert ticks.first_verdict(100, other) == (62, "worker_lost")


def test_an_engine_that_stands_still_is_ended(ticks: Ticks, child: Child) -> None:
    assert ticks.first_verdict(3, status_of(child, idle_s=29.0)) is None
    assert ticks.first_verdict(3, status_of(child, idle_s=31.0)) == (1, "job_timeout")


@pytest.mark.parametrize("away_s", [5, 100, 10_000])
def test_after_redis_was_away_every_worker_has_its_time_again(
    ticks: Ticks, child: Child, away_s: int
) -> None:
    """Nobody's heartbeat has arrived meanwhile, and the supervisor has not looked."""
    ticks.first_verdict(3, status_of(child))
    ticks.clock.now += away_s
    silent_for = ticks.first_verdict(100)
    assert silent_for is not None
    assert silent_for[0] > 8 + 5, "the time to recover comes first"


def test_blindness_again_and_again_ends_no_worker(ticks: Ticks, child: Child) -> None:
    ticks.first_verdict(3, status_of(child))
    for _ in range(20):
        ticks.clock.now += 4
        assert ticks.first_verdict(3) is None


def stalled(child: Child, idle_s: float, *, is_on_gpu: bool = True) -> WorkerStatus:
    return status_of(child, idle_s=idle_s, running=1, is_on_gpu=is_on_gpu)


def busy(child: Child, **fields) -> dict[str, WorkerStatus]:
    """The heartbeat of another model."""
    return {"other": status_of(child, **{"running": 1, "is_on_gpu": True, **fields})}


def test_beside_a_busy_model_on_its_gpu_an_engine_has_longer_and_its_jobs_are_tried_again(
    ticks: Ticks, child: Child
) -> None:
    assert ticks.first_verdict(3, stalled(child, 119.0), busy(child)) is None
    assert ticks.first_verdict(3, stalled(child, 121.0), busy(child)) == (1, "worker_lost")


@pytest.mark.parametrize(
    "other", [{"running": 0}, {"is_on_gpu": False}], ids=["idle", "on the CPU"]
)
def test_a_model_that_does_not_use_the_gpu_gives_no_reason(
    ticks: Ticks, child: Child, other: dict[str, object]
) -> None:
    assert ticks.first_verdict(3, stalled(child, 31.0), busy(child, **other)) == (1, "job_timeout")


def test_a_model_that_is_loaded_may_use_the_gpu(ticks: Ticks, child: Child) -> None:
    loading = {"other": status_of(child, WorkerState.LOADING)}
    assert ticks.first_verdict(3, stalled(child, 31.0), loading) is None


def test_a_model_on_the_cpu_has_no_longer_beside_a_busy_one(ticks: Ticks, child: Child) -> None:
    stall = stalled(child, 31.0, is_on_gpu=False)
    assert ticks.first_verdict(3, stall, busy(child)) == (1, "job_timeout")


def test_once_the_other_model_has_ended_the_usual_time_runs(ticks: Ticks, child: Child) -> None:
    assert ticks.first_verdict(1, stalled(child, 40.0), busy(child)) is None
    assert ticks.first_verdict(100, stalled(child, 60.0)) == (31, "worker_lost")


def test_a_model_that_was_busy_before_the_last_step_is_forgotten(
    ticks: Ticks, child: Child
) -> None:
    ticks.first_verdict(10, stalled(child, 0.0), busy(child))
    assert ticks.first_verdict(40, stalled(child, 0.0)) is None
    assert ticks.first_verdict(1, stalled(child, 31.0)) == (1, "job_timeout")
