"""A job about to be queued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.contract.requests import TASKS, Request, Task
from jobs.storage import names


@dataclass(frozen=True, slots=True)
class Submission:
    """A job about to be queued. ``facts`` is what dashboards may show: never a prompt.

    ``owner`` is the API process, ``caller`` a hash that stands for the key of its client.
    ``stored_data`` is kept for ``stored_ttl_s`` seconds in the field ``record`` of the hash
    ``stored_key``, if the job is accepted.
    """

    job_id: str
    model_id: str
    request: Request
    facts: dict[str, Any]
    is_background: bool = False
    owner: str = ""
    caller: str = ""
    is_first: bool = False
    stored_key: str = ""
    stored_data: bytes = b""
    stored_ttl_s: int = 0

    @property
    def slug(self) -> str:
        return names.slug_of(self.model_id)

    @property
    def task(self) -> Task:
        return TASKS[type(self.request)]

    @property
    def queue_name(self) -> str:
        is_generation = self.task is Task.GENERATE
        name_of = names.generation_queue if is_generation else names.control_queue
        return name_of(self.slug)
