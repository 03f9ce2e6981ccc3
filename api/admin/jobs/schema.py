"""Answers of /v1/jobs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.web.base_schema import Body, integer


class JobErrorObject(BaseModel):
    """Why a job did not finish."""

    code: str
    message: str
    param: str | None = None


class JobProgress(BaseModel):
    """How far a download is, in bytes, and the file that it fetches."""

    completed: int
    total: int
    file: str


class JobWait(BaseModel):
    """What a queued job waits for: a slot (``queued``), the load of its model, of which a
    ``fraction`` is done, or that there is memory for it (``waiting``).

    ``position``: its place in the queue, from 1; ``null`` while a worker takes it.
    """

    phase: Literal["queued", "loading", "waiting"]
    position: int | None
    fraction: float | None = None


class JobQueue(BaseModel):
    """The place of a generation among others; ``class`` names its queue.

    While it waits, ``position`` is its place in its queue, from 1, and ``ahead`` counts the jobs
    before it; fairness between keys may change both. ``estimated_start_s``: in so many
    seconds it starts, if jobs of the class start as they did of late; ``null`` if too few did, or
    while the class is held.
    """

    job_class: Literal["interactive", "batch"] = Field(serialization_alias="class")
    priority: int
    position: int | None = None
    ahead: int | None = None
    estimated_start_s: float | None = None


class JobAnswer(BaseModel):
    """One job. Times are epoch seconds; ``result``: the body of a finished job's answer.

    ``progress`` is that of a running download, ``wait`` that of a queued job. ``deadline_at``: then
    the job ends. ``key``: the name of its caller's key. ``retry_of``: the job that it repeats.
    ``yields``: how often it gave way.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["job"] = "job"
    task: str
    status: str
    model_id: str
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    attempt: int = 0
    background: bool = False
    key: str | None = None
    queue: JobQueue | None = None
    deadline_at: float | None = None
    batch: str | None = None
    line: int | None = None
    retry_of: str | None = None
    yields: int = 0
    cancel_reason: str | None = None
    progress: JobProgress | None = None
    wait: JobWait | None = None
    error: JobErrorObject | None = None
    result: dict[str, Any] | list[Any] | None = None


class JobChanges(Body):
    """PATCH /v1/jobs/{id}."""

    priority: Annotated[int, integer(-100, 100)]


class JobList(BaseModel):
    """A page of jobs, newest first; ``next_cursor``: the ``cursor`` of the next page."""

    object: Literal["list"] = "list"
    data: list[JobAnswer]
    has_more: bool
    next_cursor: str | None
