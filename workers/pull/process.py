"""The pulls of this machine: one process at a time, started for one job and settled at its death.

Nobody owns pulls: each job names its machine, and only that machine's supervisor starts and
settles it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

from jobs.contract.errors import ContractError, PullError, WorkerLostError
from jobs.contract.events import EventKind
from jobs.contract.pulls import PullRequest
from jobs.contract.requests import decode_request
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from workers.exits import ExitCode
from workers.supervision.environment import worker_environment
from workers.supervision.recovery import Recovery
from workers.supervision.worker_process import describe_exit

_MAX_STARTS = 3  # of processes that die before they take their job
_MAX_ATTEMPTS = 20
_RETRY_S = 1.0

log = logging.getLogger(__name__)


class PullProcess:
    """Call ``look`` at each tick. ``node()`` is this node's uid."""

    def __init__(self, store: JobStore, settings: Settings, node: Callable[[], str]) -> None:
        self._store = store
        self._is_allowed = settings.pull
        self._grace_s = settings.grace_s
        self._recovery = Recovery(store, settings)
        self._nodes = DesiredModels(store.redis)
        self._node = node
        self._running: _Running | None = None
        self._has_settled_earlier = False
        self._lost_starts: Counter[str] = Counter()
        self._start_at = 0.0

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def look(self) -> None:
        """Settle a process that has ended, and start one for the next job of this machine."""
        if not self._has_settled_earlier:
            self._settle_earlier()
        self._cancel_for_absent()
        if self._running is not None:
            if self._running.exit_code is None:
                return
            self._settle(self._running, self._running.exit_code)
        job_id = self._next_job() if time.monotonic() >= self._start_at else None
        if job_id is not None and self._is_allowed:
            self._start(job_id)
        elif job_id is not None:
            error = PullError("the machine does not download models: see MGS_PULL")
            self._recovery.end_waiting([job_id], error)

    def stop(self) -> None:
        """End the process. Its job stays on the queue, and its files stay for the next process."""
        if self._running is not None:
            self._running.stop(self._grace_s)
            self._settle(self._running, ExitCode.STOPPED)

    def _settle_earlier(self) -> None:
        """Settle the jobs of this node's earlier processes: they ended with their supervisor."""
        node = self._node()
        claims = self._store.claims(names.PULL_SLUG)
        ours = {worker for worker, _ in claims if names.node_of_pull_worker(worker) == node}
        self._recovery.settle_jobs_of(
            names.PULL_SLUG, ours, WorkerLostError("the supervisor died"), has_crashed=True
        )
        self._has_settled_earlier = True

    def _cancel_for_absent(self) -> None:
        """End cancelled jobs of machines whose supervisor is gone. If one is only out of reach, its
        process ends when its events are refused."""
        claims = self._store.claims(names.PULL_SLUG)
        others = [one for one in claims if names.node_of_pull_worker(one[0]) != self._node()]
        if not others:
            return
        alive = {node.uid for node in self._nodes.nodes()}
        for worker, job_id in others:
            is_cancelled = any(record.cancel for record in self._store.records([job_id]))
            if is_cancelled and names.node_of_pull_worker(worker) not in alive:
                error = WorkerLostError("the machine of the download is gone")
                self._recovery.settle_jobs_of(names.PULL_SLUG, [worker], error, has_crashed=True)

    def _settle(self, ended: _Running, code: int) -> None:
        """Return the job of an ended process to the queue, unless it killed too many."""
        how = describe_exit(code)
        error = WorkerLostError(f"the process of the download died ({how}); repeat the pull")
        is_blamed = code != 0 and not self._has_advanced(ended.job_id)
        self._recovery.settle_jobs_of(
            names.PULL_SLUG,
            [ended.name],
            error,
            has_crashed=True,
            suspects={ended.job_id} if is_blamed else (),
        )
        if code != 0:
            log.warning("pull process died", extra={"job": ended.job_id, "how": how})
            self._start_at = time.monotonic() + _RETRY_S
            self._note_lost_start(ended.job_id, error)
        ended.close()
        self._running = None

    def _note_lost_start(self, job_id: str, error: WorkerLostError) -> None:
        """End a job whose processes die before they take it."""
        self._lost_starts[job_id] += 1
        if read_log(self._store.redis, job_id):
            del self._lost_starts[job_id]
        elif self._lost_starts[job_id] >= _MAX_STARTS:
            self._recovery.end_waiting([job_id], error)

    def _has_advanced(self, job_id: str) -> bool:
        """Whether the job's last attempt has downloaded anything: then it is not to blame."""
        events = read_log(self._store.redis, job_id)
        last = [event for event in events if event.attempt == events[-1].attempt]
        sizes = [event.completed for event in last if event.kind is EventKind.PROGRESS]
        if not sizes or events[-1].attempt >= _MAX_ATTEMPTS:
            return False
        return (sizes[-1] or 0) > (sizes[0] or 0)

    def _next_job(self) -> str | None:
        """The first job on the queue that is for this machine."""
        redis = self._store.redis
        waiting = redis.lrange(self._store.queue(names.PULL_QUEUE).key, 0, -1)
        job_ids: list[str] = [job_id.decode(errors="replace") for job_id in waiting]
        if not job_ids:
            return None
        requests = redis.mget([names.request_key(job_id) for job_id in job_ids])
        for job_id, data in zip(job_ids, requests, strict=True):
            try:
                request = decode_request(data or b"")
            except ContractError:
                continue
            if isinstance(request, PullRequest) and request.node == self._node():
                return job_id
        return None

    def _start(self, job_id: str) -> None:
        try:
            self._running = _Running(job_id, self._node())
        except OSError as error:
            self._start_at = time.monotonic() + _RETRY_S
            log.error("pull process cannot be started", extra={"error": str(error)})
            return
        log.info("pull process started", extra={"job": job_id, "pid": self._running.pid})


class _Running:
    """A started process. Its lifeline is closed when the supervisor ends."""

    def __init__(self, job_id: str, node: str) -> None:
        self.job_id = job_id
        self.name = names.pull_worker_name(node, secrets.token_hex(4))
        lifeline_read, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "workers.pull", "--job", job_id, "--name", self.name]
        try:
            self._process = subprocess.Popen(
                [*command, "--lifeline", str(lifeline_read)],
                stdin=subprocess.DEVNULL,
                pass_fds=(lifeline_read,),
                start_new_session=True,  # the supervisor passes on signals to the terminal's group
                env=worker_environment(),
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline_read)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, ``-N`` for signal N, ``None`` while it runs."""
        return self._process.poll()

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace period; returns after its end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Release what an ended process leaves."""
        os.close(self._lifeline)
