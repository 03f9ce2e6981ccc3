"""A job as read from RQ. Its content is not trusted."""

from __future__ import annotations

from typing import Any

from rq.exceptions import DeserializationError
from rq.job import Job

from jobs.contract.requests import Task


class QueuedJob(Job):
    """A job of this product. Nothing that its hash names is imported or called."""

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
        """Do nothing: a forged hash must not trigger HTTP requests."""


def is_ours(job: QueuedJob, expected: Task | None) -> bool:
    """Whether the job has a known task and its own id as the only argument.

    ``expected`` ``None`` allows any task but a generation.
    """
    try:
        task = Task(job.func_name or "")
        is_plain = list(job.args) == [job.id] and not job.kwargs and job.instance is None
    except (ValueError, TypeError, DeserializationError):
        return False
    return is_plain and (task is expected or (expected is None and task is not Task.GENERATE))
