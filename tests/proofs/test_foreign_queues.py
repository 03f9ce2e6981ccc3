"""Another RQ application on the product's Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.faults.clients import body, expected
from tests.faults.rig import (
    direct_client,
    kill,
    running_server,
    submit,
    text_of,
    wait_ended,
    wait_worker,
    worker_pid,
)
from tests.helpers.foreign_rq import ForeignApplication
from tests.helpers.private_redis import private_redis
from tests.helpers.server import Server
from tests.proofs.registry import Result, Tally, proof

MODEL_IDS = ("0", "other", "reports", "x")
_SLUG = "(" + "|".join(MODEL_IDS) + ")"
_JOB = r"((cmpl|load)-[0-9a-f]{32}|unload-[0-9a-f]{16})"
OURS = re.compile(
    "|".join(
        (
            r"mgs:.+",
            rf"rq:queue:mgs-(gen|ctl)-{_SLUG}(:intermediate)?",
            rf"rq:(finished|failed|canceled|wip|workers|clean_registries):mgs-(gen|ctl)-{_SLUG}",
            rf"rq:worker:{_SLUG}\.(gen|ctl)\.[0-9a-f]{{8}}(:executions)?",
            rf"rq:(job|results|executions):{_JOB}",
            rf"rq:execution:{_JOB}:[0-9a-f]{{32}}",
        )
    )
)


@proof(
    "foreign-queues",
    goal="0 keys of others changed, 0 unknown keys left",
    full=20,
    fast=1,
)
def test_an_rq_application_on_the_same_redis_keeps_every_byte(rounds: int) -> Result:
    tally = Tally()
    with private_redis() as own, direct_client(own.url) as redis:
        foreign = ForeignApplication(redis)
        foreign.fill()
        with running_server(REDIS_URL=own.url) as server:
            for _ in range(rounds):
                _use(server, tally)
                for problem in foreign.problems():
                    tally.check(False, problem)
                tally.rounds += 1
        for problem in [*foreign.problems(), *_unknown_keys(foreign)]:
            tally.check(False, problem)
        used = (
            f"{rounds * len(MODEL_IDS)} loads and unloads, {rounds} workers and supervisors killed"
        )
        return tally.result(f"{foreign.num_keys} keys of others beside {used}")


def _use(server: Server, tally: Tally) -> None:
    """Load and unload models, kill a worker and the supervisor, purge a queue."""
    for model_id in MODEL_IDS:
        server.load("fake-10ms", model_id, slots=1)
    _kill_worker(server, tally)
    _kill_supervisor(server, tally)
    waiting = [_submit(server, "x") for _ in range(3)]
    server.post("/management/process/clean-up", {"timeout": 0}, "x")
    tally.check(all(wait_ended(server, one) for one in waiting), "the clean-up")
    for model_id in MODEL_IDS:
        server.unload(model_id)


def _submit(server: Server, model_id: str) -> str:
    return submit(server, body(8, 40), model_id=model_id)


def _kill_worker(server: Server, tally: Tally) -> None:
    jobs, pid = [_submit(server, "reports") for _ in range(3)], worker_pid(server, "reports")
    kill(pid)
    tally.check(wait_worker(server, pid, "reports") != pid, "the same worker")
    _check(server, jobs, tally)


def _kill_supervisor(server: Server, tally: Tally) -> None:
    jobs = [_submit(server, model_id) for model_id in MODEL_IDS]
    server.processes["workers"].kill()
    server.processes["workers"].wait()
    server.start("workers", "workers.supervision.supervisor")
    _check(server, jobs, tally)


def _check(server: Server, jobs: list[str], tally: Tally) -> None:
    for job_id in jobs:
        found = wait_ended(server, job_id)
        tally.check(text_of(found) == expected(8, 40), f"{job_id}: {found}")


def _unknown_keys(foreign: ForeignApplication) -> Iterator[str]:
    """Keys that belong neither to the application nor, by their names, to the product."""
    for key in foreign.redis.keys("*"):
        if not foreign.is_foreign(key) and not OURS.fullmatch(key.decode()):
            yield f"{key!r} has no owner"
