"""Fixtures of all programs: settings, clients, and the product's store on these clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rq import Queue

from jobs.contract.requests import Request, UnloadRequest
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.event_log import EventWriter
from jobs.storage.store import JobStore
from jobs.storage.submitter import Submission
from tests.explorer.client import CallbackRedis
from tests.explorer.memory import Hash
from tests.explorer.rules import Rules
from tests.explorer.state_fields import LOAD, SLUG, StateFields, rq_hash
from tests.helpers.samples import generate

AGE_S = 1.0  # a purge keeps jobs that are younger


class Fixtures:
    """``jobs``: number of tokens of each job, by id."""

    def __init__(self, rules: Rules, on_script: Callable[[str], object]) -> None:
        self.rules = rules
        self.jobs = rules.jobs
        self.settings = Settings(
            REDIS_URL="unix:///nowhere",
            models_dir=Path(__file__).parent,  # it has no models
            fake_engine=True,
        )
        self.api = CallbackRedis(on_script, resends="some")  # jobs.storage.connection.connect
        self.consumer = CallbackRedis(on_script, resends="never")
        self.admission = CallbackRedis(on_script, resends="never")
        self.publisher = CallbackRedis(on_script, resends="never")
        with patch("jobs.storage.event_log.ScriptConnection", CallbackConnection):
            self.store = JobStore(self.api, self.settings)
            self.writer = EventWriter(
                self.publisher, self.settings.log_ttl_s, self.settings.failure_ttl_s
            )
        self.state_fields = StateFields(self._rq_hash, rules)

    @property
    def clients(self) -> tuple[CallbackRedis, ...]:
        return self.api, self.consumer, self.admission, self.publisher

    def submission(self, job_id: str) -> Submission:
        """The submission of a job."""
        plain = Submission(job_id, "0", self.request_of(job_id), {"model": "fake"})
        if job_id not in self.jobs:
            return plain
        rules, index = self.rules, self.rules.index_of(job_id)
        return replace(
            plain,
            job_class=rules.class_of(job_id),
            batch="b" if rules.is_line(job_id) else "",
            line=index + 1 if rules.is_line(job_id) else 0,
            caller=rules.callers[index] if rules.callers else "",
            max_running=rules.max_running,
        )

    def request_of(self, job_id: str) -> Request:
        """The request of a job; its id decides the kind."""
        if job_id.startswith("unload"):
            return UnloadRequest()
        return LOAD if job_id.startswith("load") else generate("p", self.jobs[job_id])

    def _rq_hash(self, job_id: str) -> Hash:
        """RQ's hash of the job after its submission."""
        submission = self.submission(job_id)
        queue: Queue = self.store.queue(submission.queue_name)
        return rq_hash(self.store._submitter._rq_job(submission, queue))


class CallbackConnection:
    """Replaces ``ScriptConnection``, which opens its own socket."""

    def __init__(self, redis: CallbackRedis, script: str) -> None:
        self._script = redis.register_script(script)

    def send(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        return SimpleNamespace(wait=lambda: self._script(keys=keys, args=args))


def worker_name(token: str, consumer: str = "gen") -> str:
    return names.worker_name(SLUG, consumer, token)
