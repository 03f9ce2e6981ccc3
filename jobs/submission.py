"""A job about to be queued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs import names
from jobs.requests import TASKS, Request, Task


@dataclass(frozen=True, slots=True)
class Submission:
    """A job about to be queued. ``facts`` is what dashboards may show: never a prompt.

    ``owner`` is the API process, ``caller`` a hash that stands for the key of its client.
    """

    job_id: str
    model_id: str
    request: Request
    facts: dict[str, Any]
    is_background: bool = False
    owner: str = ""
    caller: str = ""
    is_first: bool = False

    @property
    def task(self) -> Task:
        return TASKS[type(self.request)]

    @property
    def queue_name(self) -> str:
        slug = names.slug_of(self.model_id)
        is_generation = self.task is Task.GENERATE
        return names.generation_queue(slug) if is_generation else names.control_queue(slug)
