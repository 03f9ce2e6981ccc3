"""Bodies and answers of /management/queues."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.web.base_schema import Body, Flag
from jobs.contract.records import JobClass
from jobs.scheduling.holds import CLASSES


class ClassesBody(Body):
    """POST …/resume: of which classes; by default of both."""

    classes: Annotated[list[JobClass], Field(min_length=1)] | None = None

    @property
    def chosen(self) -> list[JobClass]:
        """The classes, each once."""
        return list(dict.fromkeys(self.classes or CLASSES))


class HoldBody(ClassesBody):
    """POST …/hold and …/drain. ``yield_running``: jobs that run go back to their queue."""

    yield_running: Flag | None = None


class QueueEntry(BaseModel):
    """One class of one model: how many jobs wait and run, and whether it is held.

    ``hold``: jobs wait. ``drain``: new ones are refused, those that wait still run. ``by``: the
    name of the key that did it; ``since`` and ``resumed_at`` are epoch seconds.
    """

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_name: str
    job_class: JobClass = Field(serialization_alias="class")
    queue: str
    waiting: int
    running: int
    state: Literal["open", "hold", "drain"]
    by: str | None = None
    since: float | None = None
    resumed_at: float | None = None


class QueueList(BaseModel):
    """All queues of generations, or those of one model."""

    object: Literal["list"] = "list"
    data: list[QueueEntry]


class QueueChange(QueueList):
    """The queues of a model after a change. ``yielded``: how many running jobs are handed back."""

    yielded: int = 0
