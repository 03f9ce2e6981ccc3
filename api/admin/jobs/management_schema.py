"""Bodies and answers of /management."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict

from api.web.base_schema import Body, Flag, number


class CurrentQueue(BaseModel):
    """Jobs of one model; ``queues``: job id -> {task name: parameters, "start_time": epoch}.

    ``pending_requests_count``: waiting and running jobs, as in later versions of the original
    server; the other two counts are those of its earlier versions.
    """

    request_queue_size: int
    response_queue_size: int
    pending_requests_count: int
    queues: dict[str, dict[str, Any]]


class ProcessEntry(BaseModel):
    """One desired model and its worker process; the process' values are 0 until it has started."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_name: str
    model_path: str
    model_type: str
    context_length: int
    process_id: int
    cpu_usage: float
    memory_usage: int
    current_queue: CurrentQueue
    trust_remote_code: bool
    state: str
    load_fraction: float | None = None
    node: str | None = None


class Processes(BaseModel):
    """All models that are loaded or loading."""

    processes: list[ProcessEntry]


class CleanUpBody(Body):
    """``timeout``: age in seconds from which a generation job is removed.

    With ``dry_run`` they are only counted.
    """

    timeout: Annotated[float, number(0, 10 * 365 * 86400)]
    dry_run: Flag | None = None


class CleanUpAnswer(BaseModel):
    """How many jobs were removed, or would be."""

    process_clean_up: Literal["success", "dry_run"] = "success"
    num_waiting: int
    num_running: int
