"""Baseline: the number of empty jobs per second of RQ's ``SimpleWorker``.

The jobs are queued before the clock starts, so that no client or HTTP is in this figure. It uses a
separate Redis, started and configured as the server's.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker

from bench.instance import ROOT, embedded_redis_url
from bench.measurement import BenchError
from bench.processes import child_environment, python_path, running

_READY_S = 30.0
_RUN_S = 300.0


def nothing() -> None:
    """An empty job."""


def rq_jobs_per_s(num_jobs: int) -> float:
    """Measure in a separate process, as workers of this server are."""
    with _running_redis() as url:
        answer = subprocess.run(
            [sys.executable, "-m", "bench.rq_baseline", url, str(num_jobs)],
            env=child_environment() | python_path(ROOT),
            capture_output=True,
            timeout=_RUN_S,
            check=False,
        )
    if answer.returncode != 0:
        raise BenchError(f"the RQ baseline failed: {answer.stderr.decode()[-500:]}")
    return num_jobs / float(answer.stdout)


@contextlib.contextmanager
def _running_redis() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mgs-bench-") as folder:
        command = [sys.executable, "-m", "jobs.embedded_redis.launcher"]
        environment = {"MGS_STATE_DIR": folder, **python_path(ROOT)}
        with running(command, environment=environment):
            url = embedded_redis_url(Path(folder))
            _wait_until_answering(url)
            yield url


def _wait_until_answering(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    with Redis.from_url(url) as redis:
        while True:
            try:
                redis.ping()
                return
            except RedisError as error:
                if time.monotonic() > deadline:
                    raise BenchError(f"Redis does not answer: {error}") from error
                time.sleep(0.05)


def main(url: str, num_jobs: int) -> None:
    with Redis.from_url(url) as redis:
        queue = Queue("bench", connection=redis)
        for _ in range(num_jobs):
            queue.enqueue("bench.rq_baseline.nothing")
        worker = SimpleWorker([queue], connection=redis)
        started_at = time.perf_counter()
        worker.work(burst=True, logging_level="ERROR")
        print(time.perf_counter() - started_at)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
