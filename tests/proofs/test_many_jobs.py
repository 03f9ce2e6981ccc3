"""Many jobs and model ids over time: keys that are left, and the time of a supervisor's round."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rq import Queue
from rq.job import JobStatus as RqStatus

from jobs.contract.events import Event, EventKind
from jobs.contract.records import DesiredModel, encode_record
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from jobs.storage.desired_models import HEARTBEAT_TTL_S
from jobs.storage.store import JobStore
from jobs.storage.totals import MAX_FIELDS
from tests.helpers.driver import Driver
from tests.helpers.private_redis import private_redis
from tests.helpers.samples import new_job_id, settings_for
from tests.helpers.supervised import Supervised, supervised
from tests.helpers.waiting import wait_until
from tests.proofs.registry import Result, Tally, proof

JOBS_PER_ID = 20
LEFT_PER_ID = 2  # ended by the supervisor, as their model is not loaded
TTL_S = 10
FEW_IDS = 100
_QUIET_S = 120.0
_HEARTBEATS = 6
_MAX_TRANSIENT_KEYS = 3  # locks and marks that expire


@dataclass(frozen=True)
class Footprint:
    """Numbers of keys and entries in Redis at rest, and the seconds of a supervisor's round."""

    keys: int
    jobs: int
    expiry: int
    live: int
    slugs: int
    queues: int
    totals: int
    round_s: float
    pause_s: float

    def __str__(self) -> str:
        return (
            f"{self.keys} keys, {self.jobs}/{self.expiry}/{self.live} ids in the indexes, "
            f"{self.slugs} slugs, {self.queues} queues, {self.totals} totals, "
            f"round {self.round_s * 1000:.1f} ms"
        )


@proof(
    "many-jobs",
    goal="0 keys, ids, slugs, queues more than after 100 model ids; totals <= 4096; round of the "
    "supervisor <= 20 ms longer",
    full=5000,
    fast=150,
    timeout_s=300,
)
def test_used_ids_and_ended_jobs_leave_no_keys(rounds: int) -> Result:
    """Each round desires one new model id for a moment, and uses it once."""
    tally = Tally()
    with _supervised() as running:
        driver = running.driver
        driver.load_ready("fake")
        use_ids(driver, 0, FEW_IDS)
        few = footprint_at_rest(driver)
        most = use_ids(driver, FEW_IDS, rounds)
        many = footprint_at_rest(driver)
        compare(tally, few, many)
        tally.rounds = rounds
    lead = f"{rounds * JOBS_PER_ID} jobs of {rounds} ids, most keys at once {most}"
    return tally.result(f"{lead}; after {FEW_IDS} ids: {few}; after all: {many}")


@contextmanager
def _supervised() -> Iterator[Supervised]:
    """A supervisor and a client whose ended jobs expire after a few seconds."""
    ttl = str(TTL_S)
    with (
        private_redis() as own,
        tempfile.TemporaryDirectory(prefix="mgs-many-", dir="/tmp") as folder,
        supervised(own.url, Path(folder), MGS_LOG_TTL_S=ttl, MGS_FAILURE_TTL_S=ttl) as running,
    ):
        short = settings_for(own.url, Path(folder), log_ttl_s=TTL_S, failure_ttl_s=TTL_S)
        running.driver.store = JobStore(running.driver.redis, short)
        yield running


def use_ids(driver: Driver, first: int, end: int) -> int:
    """Use each id once; returns the largest number of keys in Redis."""
    most = 0
    for number in range(first, end):
        use_id(driver, f"model-{number}" if number % 4 else f"My Model/{number}")
        if number % 50 == 0:
            most = max(most, driver.redis.dbsize())
    return most


def use_id(driver: Driver, model_id: str) -> None:
    """Add and remove a desired model at once, and submit jobs for it, of which most finish.

    No process is started, as a supervisor only reads the current desired models.
    """
    slug = names.slug_of(model_id)
    desired = DesiredModel(
        model_id, new_job_id("uid"), LoadRequest("fake", "fake"), "", time.time()
    )
    with driver.redis.pipeline() as pipe:
        pipe.hset(names.DESIRED_MODELS, slug, encode_record(desired))
        pipe.hdel(names.DESIRED_MODELS, slug)
        pipe.execute()
    for number in range(JOBS_PER_ID):
        job_id = driver.submit(model_id=model_id, caller=f"caller of {model_id}")
        if number >= LEFT_PER_ID:
            finish(driver, job_id, driver.store.queue(names.generation_queue(slug)))


def finish(driver: Driver, job_id: str, queue: Queue) -> None:
    """The job's end as its worker writes it, unless the supervisor was faster."""
    end = Event(job=job_id, attempt=0, seq=1, kind=EventKind.FINISHED, t=time.time())
    if driver.store.writer.settle(end, [queue.key, queue.intermediate_queue_key]):
        driver.store.close_in_rq(job_id, RqStatus.FINISHED, TTL_S)


def footprint_at_rest(driver: Driver) -> Footprint:
    """The footprint once no key expires any more, or after the time-out."""
    redis = driver.redis

    def is_at_rest() -> bool:
        is_empty = not any(map(redis.zcard, (names.JOB_INDEX, names.JOB_EXPIRY, names.LIVE)))
        is_folded = redis.hlen(names.TOTALS) <= MAX_FIELDS
        return is_empty and is_folded and not redis.keys("rq:*:mgs-gen-m*")

    with contextlib.suppress(AssertionError):
        wait_until(is_at_rest, "everything has expired", _QUIET_S)
    nodes, workers = heartbeat_gaps(driver, _HEARTBEATS)
    return Footprint(
        keys=redis.dbsize(),
        jobs=redis.zcard(names.JOB_INDEX),
        expiry=redis.zcard(names.JOB_EXPIRY),
        live=redis.zcard(names.LIVE),
        slugs=redis.scard(names.SLUGS),
        queues=redis.scard(Queue.redis_queues_keys),
        totals=redis.hlen(names.TOTALS),
        round_s=sorted(nodes)[len(nodes) // 2] - 1.0,  # it reads the state each second
        pause_s=max(nodes + workers),
    )


def heartbeat_gaps(driver: Driver, count: int) -> tuple[list[float], list[float]]:
    """Seconds between heartbeats of the supervisor and of the worker, observed in Redis."""
    (node,) = driver.desired_models.known_nodes()
    heartbeats: tuple[list[float], list[float]] = ([], [])
    keys = (names.node_key(node), names.status_key("0"))

    def look() -> bool:
        for key, times in zip(keys, heartbeats, strict=True):
            with driver.redis.pipeline() as pipe:
                now, left_ms = pipe.time().pttl(key).execute()
            at = now[0] + now[1] / 1e6 - (HEARTBEAT_TTL_S - left_ms / 1000)
            if left_ms > 0 and (not times or at - times[-1] > 0.05):
                times.append(at)
        return min(map(len, heartbeats)) > count

    wait_until(look, "there are heartbeats", _QUIET_S)
    supervisors, workers = ([b - a for a, b in itertools.pairwise(times)] for times in heartbeats)
    return supervisors, workers


def compare(tally: Tally, few: Footprint, many: Footprint) -> None:
    """Check what has grown with the number of ids and jobs."""
    tally.check(many.keys <= few.keys + _MAX_TRANSIENT_KEYS, f"{many.keys - few.keys} more keys")
    for what in ("jobs", "expiry", "live", "slugs", "queues"):
        before, after = getattr(few, what), getattr(many, what)
        tally.check(after <= before, f"{what}: {before}, then {after}")
    tally.check(many.totals <= MAX_FIELDS, f"{many.totals} totals")
    tally.note("longer round of the supervisor", many.round_s - few.round_s, 0.02)
    tally.note("longest pause between heartbeats", many.pause_s, 2.0)
