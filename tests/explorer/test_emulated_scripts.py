"""The product's scripts do the same on the emulated Redis as on a real one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from jobs.batches.line_jobs import LineJobs
from jobs.contract.errors import ErrorInfo, JobError
from jobs.contract.events import Event, EventKind
from jobs.scheduling.holds import Holds
from jobs.scheduling.waiting_order import WaitingOrder
from jobs.storage import names
from jobs.storage.event_log import last_event_id
from tests.explorer.differential import DifferentialRedis
from tests.explorer.fixtures import Fixtures, worker_name
from tests.explorer.rules import Rules
from tests.explorer.state_fields import QUEUES, SLUG
from tests.explorer.taken_jobs import GivenUse
from workers.generation.attempts import AttemptOpener
from workers.rq_bridge.taking import HandedBack, Order, Taker
from workers.scheduling.fair_use import Use

_FREQUENT = ("take", "open", "append", "hand back")
RULES = Rules(tokens=(1,) * 6, batch=(1, 3), lines=(5,), callers=("a", "b", "a", "c", "b", "b"))


@pytest.fixture
def servers(redis_url: str) -> Iterator[DifferentialRedis]:
    found = DifferentialRedis(redis_url)
    yield found
    found.close()


class Player:
    """Plays a random operation of the product at each step, on both servers."""

    def __init__(self, servers: DifferentialRedis, seed: int) -> None:
        self.draw = random.Random(seed)
        self._fixtures = Fixtures(RULES, servers.add_script)
        for client in self._fixtures.clients:
            client.send = servers.send
        self._store = self._fixtures.store
        redis = self._fixtures.api
        self._holds, self._order = Holds(redis), WaitingOrder(self._store)
        self._lines = LineJobs(redis)
        self._takers = {lane: self._taker(lane) for lane in ("gen", "batch")}
        self._opener = {lane: AttemptOpener(redis, _worker(lane)) for lane in self._takers}
        redis.hset(names.DESIRED_MODELS, SLUG, "a model")
        self.num_done: dict[str, int] = {}
        self._moves: dict[str, Callable[[str], object]] = {
            "submit": self._submit,
            "take": self._take,
            "open": lambda job: self._opener[self._lane(job)].open(job),
            "append": self._append,
            "hand back": lambda job: self._takers[self._lane(job)].hand_back(
                job, self._attempt(job)
            ),
            "settle": self._settle,
            "release": lambda job: self._store.drop_claim(SLUG, _worker(self._lane(job)), job),
            "cancel": lambda job: self._store.cancel(job, "enough"),
            "purge": lambda job: self._store.purge(SLUG, -1.0),
            "return": lambda job: self._store.return_to_queue(
                self._store.record(job), _worker(self._lane(job)), counted_as="deaths"
            ),
            "strays": lambda job: self._store.return_strays(SLUG),
            "hold": self._hold,
            "priority": lambda job: self._order.change_priority(
                self._store.record(job), int(job[1:]) + self.draw.choice((0, 10)), 10.0
            ),
            "forget": lambda job: self._lines.forget(["j5"]),
            "expire": self._expire,
        }

    def step(self) -> None:
        """One operation; an error that the product raises for a client is part of it."""
        weights = [5 if name in _FREQUENT else 1 for name in self._moves]
        (name,), job = self.draw.choices(list(self._moves), weights), f"j{self.draw.randrange(6)}"
        with suppress(JobError):
            if self._moves[name](job) not in (None, False, HandedBack(is_returned=False)):
                self.num_done[name] = self.num_done.get(name, 0) + 1

    def _lane(self, job: str) -> str:
        return "batch" if RULES.class_of(job) == "batch" else "gen"

    def _attempt(self, job: str) -> int:
        """Mostly the current one."""
        return self._store.record(job).attempt if self.draw.random() < 0.8 else 1

    def _taker(self, lane: str) -> Taker:
        redis, queue = self._fixtures.api, self._store.queue(QUEUES[lane])
        job_class = "batch" if lane == "batch" else "interactive"
        order = Order(job_class, use=GivenUse(Use({f"{job_class}:a": 1.5}, {"a": 1})))
        return Taker(redis, queue, _worker(lane), "", order)

    def _submit(self, job: str) -> None:
        # No two jobs are equally urgent: which one is next would depend on the order of a set.
        new = replace(self._fixtures.submission(job), priority=int(job[1:]), weight=2.0)
        self._store.submit(replace(new, max_running=1 if job == "j0" else 0))

    def _take(self, job: str) -> bool:
        held = [f"j{n}" for n in range(6) if self.draw.random() < 0.1]
        return bool(self._takers[self._lane(job)].take(held))

    def _append(self, job: str) -> bool:
        return self._fixtures.writer.append([self._event(job, EventKind.CHUNK)]) == [True]

    def _settle(self, job: str) -> bool:
        kind = self.draw.choice((EventKind.FINISHED, EventKind.FAILED))
        return self._fixtures.writer.settle(self._event(job, kind))

    def _event(self, job: str, kind: EventKind) -> Event:
        error = ErrorInfo("internal_error", "broken") if kind is EventKind.FAILED else None
        seq = last_event_id(self._fixtures.api, job).seq + self.draw.choice((0, 1, 1, 1))
        attempt = self._attempt(job)
        return Event(job=job, attempt=attempt, seq=max(seq, 1), kind=kind, t=1.0, error=error)

    def _expire(self, job: str) -> None:
        """An ended job is gone, so that its id may be submitted again."""
        if self._store.record(job).status.is_terminal:
            self._fixtures.api.delete(names.job_key(job), names.log_key(job))

    def _hold(self, job: str) -> None:
        job_class = RULES.class_of(job)
        if self.draw.random() < 0.3:
            self._holds.hold(SLUG, self.draw.choice(("hold", "drain")), [job_class], "somebody")
        else:
            self._holds.resume(SLUG, [job_class])


def _worker(lane: str) -> str:
    return worker_name("w0", lane)


@pytest.mark.parametrize("seed", range(3))
def test_scripts_do_the_same_as_on_a_real_redis(servers: DifferentialRedis, seed: int) -> None:
    player = Player(servers, seed)
    for step in range(3000):
        player.step()
        if step % 100 == 0:
            servers.compare_states()
    servers.compare_states()
    assert all(player.num_done[name] > 10 for name in _FREQUENT), player.num_done
