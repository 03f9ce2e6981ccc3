"""A client of the queues: submits jobs, reads their events, loads and unloads models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.contract.events import Event, EventKind
from jobs.contract.records import DesiredModel, JobRecord, JobStatus, WorkerState, WorkerStatus
from jobs.contract.requests import LoadRequest, Prompt, TokenCountRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.desired_models import DesiredModels
from jobs.storage.event_log import read_log
from jobs.storage.store import JobStore
from tests.helpers.samples import generate, new_job_id, settings_for, submission
from tests.helpers.waiting import wait_until


class Driver:
    """A client that uses Redis directly; the default model_id is 0."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.settings = settings_for(redis_url, folder)
        self.redis: SyncRedis = connect(redis_url, retries=8)
        self.store = JobStore(self.redis, self.settings)
        self.desired_models = DesiredModels(self.redis)

    def close(self) -> None:
        self.redis.close()

    # Jobs.

    def submit(self, request: Any = None, model_id: str = "0", **fields: Any) -> str:
        new = submission(request, model_id=model_id, **fields)
        self.store.submit(new)
        return new.job_id

    def generate(self, text: str = "a prompt", max_tokens: int | None = 16, **fields: Any) -> str:
        """Submit a completion; returns the job's id."""
        return self.submit(generate(text, max_tokens, **fields))

    def count_tokens(self, text: str, model_id: str = "0") -> str:
        prompt = Prompt(text=text)
        return self.submit(TokenCountRequest(prompt), model_id, job_id=new_job_id("tok"))

    def events(self, job_id: str) -> list[Event]:
        return read_log(self.redis, job_id)

    def record(self, job_id: str) -> JobRecord:
        return self.store.record(job_id)

    def wait_running(self, job_id: str, num_tokens: int = 1) -> list[Event]:
        """The events so far, once the job has sent ``num_tokens`` tokens."""

        def enough() -> list[Event]:
            found = self.events(job_id)
            return found if len(token_ids(found)) >= num_tokens else []

        return wait_until(enough, f"job {job_id} has sent {num_tokens} tokens")

    def wait_ended(self, job_id: str, timeout_s: float = 30.0) -> list[Event]:
        """All events, once the terminal one was written."""
        wait_until(lambda: self.record(job_id).status.is_terminal, f"job {job_id} ends", timeout_s)
        return self.events(job_id)

    def text_of(self, job_id: str) -> str:
        """The whole text of a job; fails if it does not finish."""
        found = self.wait_ended(job_id)
        assert found[-1].kind is EventKind.FINISHED, found[-1]
        return text(found)

    # Models.

    def load(self, name: str = "fake", model_id: str = "0", **options: Any) -> DesiredModel:
        """Write the desired model, as the API does; returns at once."""
        desired = DesiredModel(
            model_id=model_id,
            uid=new_job_id("uid"),
            load=LoadRequest(name, options.pop("backend", "fake"), **options),
            load_job=new_job_id("load"),
            created_at=time.time(),
        )
        assert self.desired_models.put(names.slug_of(model_id), desired)
        self.submit(desired.load, model_id, job_id=desired.load_job)
        return desired

    def load_ready(self, name: str = "fake", model_id: str = "0", **options: Any) -> WorkerStatus:
        """The same; returns the heartbeat of its worker once it is ready."""
        desired = self.load(name, model_id, **options)
        found = self.wait_ended(desired.load_job)
        assert found[-1].kind is EventKind.FINISHED, found[-1]
        return self.wait_ready(model_id)

    def unload(self, model_id: str = "0") -> str:
        """Remove the desired model; returns the id of the unload job."""
        desired = self.desired_models.remove(names.slug_of(model_id))
        assert desired is not None
        return self.submit(UnloadRequest(), model_id, job_id=names.unload_job_id(desired.uid))

    def status(self, model_id: str = "0") -> WorkerStatus | None:
        slug = names.slug_of(model_id)
        return self.desired_models.statuses([slug]).get(slug)

    def wait_ready(
        self, model_id: str = "0", other_than: Sequence[int] = (), timeout_s: float = 30.0
    ) -> WorkerStatus:
        """The heartbeat of a ready worker whose process is not in ``other_than``."""

        def ready() -> WorkerStatus | None:
            status = self.status(model_id)
            is_new = status is not None and status.pid not in other_than
            return status if is_new and status.state is WorkerState.READY else None

        found = wait_until(ready, f"a worker of {model_id} is ready", timeout_s)
        assert found is not None
        return found

    def wait_status(self, job_id: str, status: JobStatus) -> JobRecord:
        wait_until(lambda: self.record(job_id).status is status, f"job {job_id} is {status}")
        return self.record(job_id)


def text(events: Sequence[Event], choice: int = 0) -> str:
    return "".join(event.text for event in events if event.choice == choice)


def token_ids(events: Sequence[Event]) -> list[int]:
    return [token_id for event in events for token_id in event.token_ids]


def assert_whole(events: Sequence[Event]) -> None:
    """Check for consecutive sequence numbers, ids in order, one terminal event at the end."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert [event.is_terminal for event in events] == [False] * (len(events) - 1) + [True]
