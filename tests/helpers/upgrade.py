"""This version on the data of an older one that was killed under load, and checks of the result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx

from jobs.contract.events import Event, EventKind
from jobs.contract.records import JobRecord
from jobs.contract.requests import GenerateRequest, Task, decode_request
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.event_log import read_log
from tests.helpers.driver import Driver, text
from tests.helpers.foreign_rq import ForeignApplication
from tests.helpers.private_redis import private_redis
from tests.helpers.server import Server, make_server
from tests.helpers.upgrade_dump import load_dump
from tests.helpers.waiting import wait_until

HASHED_ID = "my model/x"
MODELS = {"0": "fake-20ms", "1": "fake", "2": "fake", HASHED_ID: "fake-20ms"}
OLD_QUEUES = (
    "gen-0",
    "gen-reports",
    "ctl-0",
)  # queues of another application, under names of older versions
_OLD_KEY = re.compile(rb"rq:[a-z_-]+:(gen|ctl)-|mgs:claim:")


@dataclass(frozen=True)
class OldJob:
    """A job of the older version: its record, its request, its events."""

    record: JobRecord
    request: object
    events: list[Event]

    @property
    def expected_text(self) -> str:
        """The fake engine's text after the prompt: it counts."""
        assert isinstance(self.request, GenerateRequest)
        started = [event.usage for event in self.events if event.usage is not None]
        start = started[0].prompt_tokens if started else len(self.request.prompts[0].text or "")
        places = range(start, start + (self.request.max_tokens or 0))
        return "".join(f"{place // 8:07d} "[place % 8] for place in places)


@dataclass
class Upgrade:
    """A running server. Each check returns the problems found."""

    server: Server
    driver: Driver
    jobs: dict[str, OldJob]
    foreign: ForeignApplication | None

    @property
    def open_jobs(self) -> dict[str, OldJob]:
        """The jobs that have not ended."""
        return {k: job for k, job in self.jobs.items() if not job.record.status.is_terminal}

    def models(self) -> Iterator[str]:
        """Every desired model is loaded."""
        for model_id, name in MODELS.items():
            status = self.driver.wait_ready(model_id)
            if status.model_name != name:
                yield f"{model_id} is {status.model_name}"

    def generations(self) -> Iterator[str]:
        """Running jobs continue after their last token; queued jobs run."""
        for job_id, job in self.open_jobs.items():
            found = self.driver.wait_ended(job_id)
            if found[: len(job.events)] != job.events:
                yield f"{job_id}: its first events have changed"
            if found[-1].kind is not EventKind.FINISHED:
                yield f"{job_id}: {found[-1]}"
            elif job.record.task is Task.GENERATE and text(found) != job.expected_text:
                yield f"{job_id}: {text(found)!r} after {text(job.events)!r}"

    def ended_jobs(self) -> Iterator[str]:
        """Ended jobs have the same result as before."""
        for job_id, job in self.jobs.items():
            if job.record.status.is_terminal:
                shown = self.get(f"/v1/jobs/{job_id}")
                if shown["status"] != job.record.status or self.driver.events(job_id) != job.events:
                    yield f"{job_id}: {shown}"

    def responses(self) -> Iterator[str]:
        """Stored responses can be read by id and continued."""
        stored = [job_id for job_id in self.jobs if job_id.startswith("resp_")]
        for job_id in stored:
            shown, job = self.get(f"/v1/responses/{job_id}"), self.jobs[job_id]
            if shown.get("status") != "incomplete":  # their ``max_output_tokens``
                yield f"{job_id}: {shown}"
            elif shown["output"][0]["content"][0]["text"] != job.expected_text:
                yield f"{job_id}: {shown['output']}"
        body = {"input": "and now?", "max_output_tokens": 8, "previous_response_id": stored[0]}
        answer = self.server.post("/v1/responses", body, "1").json()
        if answer.get("status") != "incomplete":
            yield f"after {stored[0]}: {answer}"

    def leftovers(self) -> Iterator[str]:
        """No key, entry or record has a name of the older version."""
        redis = self.driver.redis
        for key in redis.keys("*"):
            if not _OLD_KEY.match(key):
                continue
            if not self._is_foreign(key):
                yield f"{key!r} is left: {_content(redis, key)}"
            elif ours := self.foreign.entries_of_others(key):
                yield f"{key!r} has {ours}"
        for queue in redis.smembers("rq:queues"):
            if _OLD_KEY.match(queue) and not self._is_foreign(queue):
                yield f"rq:queues has {queue!r}"
        if redis.exists("mgs:nodes"):
            yield "mgs:nodes is left"
        for job_id, job in self.jobs.items():
            slug = names.slug_of(job.record.model_id)
            origin = (redis.hget(f"rq:job:{job_id}", "origin") or b"").decode()
            for queue_name in (self.driver.record(job_id).queue, origin):
                if queue_name and queue_name not in names.queues_of(slug):
                    yield f"{job_id} is of queue {queue_name}"

    def books(self) -> Iterator[str]:
        """Ended jobs are in no counter, claim or registry."""
        redis = self.driver.redis

        def held() -> list[bytes]:
            return [*redis.zrange(names.LIVE, 0, -1), *redis.keys(names.claims_key("*"))]

        with contextlib.suppress(AssertionError):
            wait_until(lambda: not held(), "all claims are released", 10)  # just after a job's end
        if left := held():
            yield f"live or held: {left}"
        alive = {f"rq:worker:{name}" for m in MODELS for name in self.driver.wait_ready(m).names}
        for worker in redis.smembers("rq:workers"):
            if worker.decode() not in alive and not self._is_foreign(worker):
                yield f"RQ lists {worker!r}"

    def foreign_jobs(self) -> Iterator[str]:
        """Jobs of other applications on queues of the old names have not moved."""
        yield from self.foreign.problems() if self.foreign else ()

    def get(self, path: str) -> dict[str, object]:
        return dict(httpx.get(f"{self.server.url}{path}", timeout=20).json())

    def _is_foreign(self, key: bytes) -> bool:
        return self.foreign is not None and self.foreign.is_foreign(key)


CHECKS = ("models", "generations", "ended_jobs", "responses", "leftovers", "books", "foreign_jobs")


@contextmanager
def upgraded(*, is_shared: bool, num_kills: int = 0, num_supervisors: int = 1) -> Iterator[Upgrade]:
    """API and supervisors of this version on that data; ``is_shared``: with another application.

    The first supervisor is killed ``num_kills`` times while it renames keys.
    """
    with private_redis() as own, connect(own.url) as redis, contextlib.ExitStack() as stack:
        load_dump(redis)
        jobs = read_old_jobs(redis)
        foreign = ForeignApplication(redis, OLD_QUEUES) if is_shared else None
        if foreign:
            foreign.fill()
        server = make_server(REDIS_URL=own.url)
        stack.callback(server.stop)
        driver = Driver(own.url, server.folder)
        stack.callback(driver.close)
        for _ in range(num_kills):
            _kill_in_the_move(server, redis)
        server.start("web", "api")
        server.start("workers", "workers.supervision.supervisor")
        for number in range(1, num_supervisors):
            other = replace(server, processes={}, env=_env_of_another(server, number))
            stack.callback(other.stop)
            other.start("workers", "workers.supervision.supervisor")
        yield Upgrade(server, driver, jobs, foreign)


def _kill_in_the_move(server: Server, redis: SyncRedis) -> None:
    """Start a supervisor, and kill it as soon as it has renamed a key."""

    def old_keys() -> set[bytes]:
        return {key for key in redis.keys("*") if _OLD_KEY.match(key)}

    before = old_keys()
    server.start("workers", "workers.supervision.supervisor")
    wait_until(lambda: not before or old_keys() != before, "it has begun")
    server.processes["workers"].kill()
    server.processes["workers"].wait()


def _env_of_another(server: Server, number: int) -> dict[str, str]:
    return {**server.env, "MGS_STATE_DIR": str(server.folder / f"state{number}")}


def read_old_jobs(redis: SyncRedis) -> dict[str, OldJob]:
    """All jobs of the dump."""
    found = {}
    for key in redis.keys("mgs:job:*"):
        job_id = key.decode().removeprefix("mgs:job:")
        record = JobRecord.from_redis(job_id, redis.hgetall(key))
        request = decode_request(redis.get(names.request_key(job_id)))
        found[job_id] = OldJob(record, request, read_log(redis, job_id))
    return found


def _content(redis: SyncRedis, key: bytes) -> object:
    read = {b"list": redis.lrange, b"zset": redis.zrange}.get(redis.type(key))
    return read(key, 0, -1) if read else redis.type(key)
