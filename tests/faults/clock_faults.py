"""R12: the wall clock of the supervisor and its workers jumps; other clocks do not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rq.registry import StartedJobRegistry

from jobs.storage.event_log import read_log
from tests.faults.clients import Stream, body, is_exact, retry
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import (
    Rig,
    direct_client,
    job,
    kill,
    stop_or_kill,
    wait_worker,
    worker_pid,
)
from tests.faults.worker_faults import SLOW, reload_model
from tests.helpers.clock_shift import clock_shift
from tests.helpers.server import Server, make_server

_HOUR_S = 3600


def jumping_clock(rig: Rig, rounds: int) -> Result:
    tally = Tally()
    with shifted_server() as (server, clock), direct_client(server.redis_url) as redis:
        registry = StartedJobRegistry("mgs-gen-0", redis)
        for number in range(rounds):
            clock.write_text("0")
            reload_model(server, SLOW)
            pid = worker_pid(server)
            stream = Stream(server.port, body(8, 400))
            stream.wait_text(10)
            clock.write_text(str((_HOUR_S, -_HOUR_S)[number % 2]))
            stream.wait_text(150)
            # As ``rq info`` does, with a correct clock.
            tally.check(registry.count == 1, f"{registry.count} listed as running")
            tally.check(worker_pid(server) == pid, "another worker")
            kill(pid)  # its keys must not be kept for an hour
            answer = stream.result()
            tally.check(is_exact(answer, 8, 400), f"ended {answer.code!r} {len(answer.text)}")
            attempts = {event.attempt for event in read_log(redis, answer.job_id)}
            tally.check(attempts == {1, 2}, f"attempts {attempts}")
            tally.check(job(server, answer.job_id)["status"] == "finished", "not finished")
            wait_worker(server, other_than=pid)
            tally.rounds += 1
    return tally.result()


@contextmanager
def shifted_server() -> Iterator[tuple[Server, Path]]:
    """A server, and the file with the offset of its workers' clocks in seconds."""
    server = make_server()
    clock = server.folder / "clock"
    try:
        server.start("redis", "jobs.embedded_redis.launcher")
        server.start("web", "api")
        right = dict(server.env)
        server.env.update(clock_shift(server.folder))
        server.start("workers", "workers.supervision.supervisor")
        server.env.clear()
        server.env.update(right)
        retry(server.is_ready)
        yield server, clock
    finally:
        stop_or_kill(server)
        shutil.rmtree(server.folder, ignore_errors=True)


RUNS = {"R12": Run(jumping_clock, full=20)} if sys.platform == "linux" else {}
