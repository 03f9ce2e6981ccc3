"""A job as RQ hands it over: read, never believed."""

from __future__ import annotations

from typing import Any

from rq.exceptions import DeserializationError
from rq.job import Job

from jobs.contract.requests import Task


class QueuedJob(Job):
    """A job of ours: nothing that its hash names is ever imported or called."""

    @property
    def func(self) -> Any:
        raise PermissionError("jobs of this product are looked up by name, never imported")

    @property
    def success_callback(self) -> None:
        return None

    @property
    def failure_callback(self) -> None:
        return None

    @property
    def stopped_callback(self) -> None:
        return None

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Nothing: a forged hash must not make us call addresses."""


def is_ours(job: QueuedJob, expected: Task | None) -> bool:
    """Only known names with nothing but the job's own id: the rest was put there by hand.

    ``expected`` ``None``: any task but a generation.
    """
    try:
        task = Task(job.func_name or "")
        is_plain = list(job.args) == [job.id] and not job.kwargs and job.instance is None
    except (ValueError, TypeError, DeserializationError):
        return False
    return is_plain and (task is expected or (expected is None and task is not Task.GENERATE))
