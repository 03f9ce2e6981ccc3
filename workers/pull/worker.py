"""The process of one pull: takes its job, downloads, writes the end, and exits.

The download runs on a thread of its own and is never asked to stop: it may be killed after any
byte, so a cancel or a signal ends the process.
"""

from __future__ import annotations

import logging
import os
import threading

from redis.exceptions import RedisError

from jobs.contract.errors import ContractError, JobCancelledError, JobError
from jobs.contract.events import Event
from jobs.contract.pulls import PullRequest
from jobs.contract.requests import Task
from jobs.memory.budget import read_budget
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.event_log import EventWriter
from workers.exits import ExitCode
from workers.generation.attempts import Attempt
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.pull.access import hub_access
from workers.pull.pulling import Pull
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob
from workers.runtime.admission import Admission

_HEARTBEAT_S = 2.0
_FLUSH_S = 5.0

log = logging.getLogger(__name__)


class PullWorker:
    """The parts of the process. ``job_id`` is the only job that it takes."""

    def __init__(self, settings: Settings, job_id: str, name: str) -> None:
        url = settings.effective_redis_url
        self._settings = settings
        self._job_id = job_id
        self._redis = connect(url)
        self._consumer = QueueConsumer(
            names.PULL_QUEUE,
            name,
            connect(url, retries=0),  # a repeated take could take a second job
            self._may_take,
            self._admit,
            lambda refused: self._admission.refuse(self._consumer, refused),
            self._stop_job,
            meant=[job_id],
            is_only_meant=lambda: True,
        )
        writer = EventWriter(connect(url, retries=0), settings.log_ttl_s, settings.failure_ttl_s)
        self._books = Bookkeeper()
        self._publisher = Publisher(
            writer, self._on_refused, self._on_settled, on_started=self._books.begin
        )
        self._admission = Admission(
            connect(url, retries=0), self._publisher, self._books, self._stop_job
        )
        self._outbox: Outbox | None = None
        self._lock = threading.Lock()  # of the two below
        self._has_end = False
        self._is_exiting = False

    def run(self) -> None:
        """Run until the job has ended. It does not return: the exit thread ends the process."""
        self._publisher.start()
        self._books.start()
        threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True).start()
        self._consumer.work()
        self.request_exit()
        threading.Event().wait()

    def request_exit(self) -> None:
        """End the process, once. A job without an end is left to the next process."""
        with self._lock:
            if self._is_exiting:
                return
            self._is_exiting = True
        threading.Thread(target=self._exit, name="exit", daemon=True).start()

    # The consumer.

    def _may_take(self) -> bool:
        """Called before each take; once there is a job, waits for the end of the process."""
        if self._outbox is not None:
            threading.Event().wait()
        try:
            status = self._redis.hget(names.job_key(self._job_id), "status")
        except RedisError:
            return True  # the take tries again
        return status in (b"queued", b"running")

    def _admit(self, job: QueuedJob) -> None:
        self._admission.admit(self._consumer, job, Task.PULL, self._start)

    def _start(self, attempt: Attempt, outbox: Outbox) -> None:
        request = attempt.request()
        if not isinstance(request, PullRequest):
            raise ContractError("this queue holds pulls only")
        self._outbox = outbox
        outbox.started()
        threading.Thread(
            target=self._pull, args=(request, outbox), name="download", daemon=True
        ).start()

    # The download.

    def _pull(self, request: PullRequest, outbox: Outbox) -> None:
        def report(completed: int, total: int, file: str) -> None:
            fraction = completed / total if total else 1.0
            outbox.progress("pull", fraction, completed=completed, total=total, file=file)

        try:
            name = Pull(
                request,
                self._settings.models_dir,
                hub_access(),
                report,
                budget=lambda: read_budget(self._settings).total_bytes,
            ).run()
        except JobError as error:
            if self._may_end():
                outbox.fail(error)
        except Exception as error:
            log.exception("the pull failed", extra={"job": self._job_id})
            if self._may_end():
                outbox.fail(JobError(f"the pull failed: {type(error).__name__}"))
        else:
            if self._may_end():
                outbox.finish_text(name)

    def _may_end(self) -> bool:
        """True once: for whoever writes the job's end."""
        with self._lock:
            is_first, self._has_end = not self._has_end, True
            return is_first

    # Ends.

    def _stop_job(self, job_id: str, reason: str) -> None:
        self._admission.note_cancel(job_id, reason)
        if job_id == self._job_id and self._outbox is not None and self._may_end():
            self._outbox.cancel(JobCancelledError(reason))

    def _on_refused(self, job_id: str) -> None:
        log.warning("events of the job are refused, dropping it", extra={"job": job_id})
        self._books.drop(job_id)
        self.request_exit()

    def _on_settled(self, event: Event, is_end: bool) -> None:
        self._books.close(event, is_end=is_end)
        self.request_exit()

    def _keep_alive(self) -> None:
        """Renew RQ's leases, and look for a cancel whose message was lost."""
        waiting = threading.Event()
        while not waiting.wait(_HEARTBEAT_S):
            try:
                if self._consumer.birth_date is not None:
                    self._consumer.send_heartbeat()
                reason = self._redis.hget(names.job_key(self._job_id), "cancel")
            except RedisError as error:
                log.warning("heartbeat missed", extra={"error": str(error)})
                continue
            if reason:
                self._stop_job(self._job_id, reason.decode(errors="replace"))

    def _exit(self) -> None:
        """Send the events, write RQ's records, and end the process."""
        self._consumer.request_consumer_stop()
        self._publisher.stop(_FLUSH_S)
        self._books.stop(_FLUSH_S)
        try:
            self._consumer.clean()
            self._consumer.register_death()
        except RedisError:
            log.warning("the consumer stays registered until its lease ends")
        os._exit(ExitCode.STOPPED)
