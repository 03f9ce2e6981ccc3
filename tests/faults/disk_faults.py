"""D4: Redis cannot write to its disk any more."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil

from tests.faults.clients import Stream, body, is_exact
from tests.faults.redis_faults import SLOW, check_refused, first_served
from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import Remote, Rig, remote_server, wait_worker, worker_pid
from tests.helpers.waiting import wait_until


def full_disk(rig: Rig, rounds: int) -> Result:
    """A limit on the size of Redis' files simulates a full disk."""
    tally = Tally()
    with remote_server(redis_fsync="everysec") as remote:
        remote.server.load(SLOW)
        pid = worker_pid(remote.server)
        for _ in range(rounds):
            stream = Stream(remote.server.port, body(8, 150))
            stream.wait_chunks(5)
            _limit(remote, _file_size(remote))
            wait_until(lambda: _status(remote) == "err", "Redis notices")
            check_refused(remote.server, tally)
            _limit(remote, resource.RLIM_INFINITY)
            tally.note("served after", first_served(remote.server), 3.0)
            answer = stream.result()
            tally.check(is_exact(answer, 8, 150), f"stream {answer.code!r}")
            tally.check(wait_worker(remote.server) == pid, "another worker")
            tally.rounds += 1
    return tally.result()


def _limit(remote: Remote, num_bytes: int) -> None:
    psutil.Process(remote.redis_pid()).rlimit(
        psutil.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY)
    )


def _file_size(remote: Remote) -> int:
    folder = Path(remote.redis.socket).parent
    return max(path.stat().st_size for path in folder.rglob("*.aof"))


def _status(remote: Remote) -> str:
    return str(remote.direct.info("persistence")["aof_last_write_status"])


RUNS = {"D4": Run(full_disk, full=20, fast=0)} if hasattr(psutil, "RLIMIT_FSIZE") else {}
