"""Bodies and answers of /management."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.web.base_schema import Body, Flag, number
from jobs.contract.records import JobClass


class CurrentQueue(BaseModel):
    """Jobs of one model; ``queues``: job id -> {task name: parameters, "start_time": epoch}.

    ``pending_requests_count``: waiting and running jobs, as in later versions of the original
    server; ``request_queue_size`` and ``response_queue_size`` are those of its earlier versions.
    ``batch_queue_size``: waiting jobs of the class batch, which are not in ``request_queue_size``.
    """

    request_queue_size: int
    response_queue_size: int
    batch_queue_size: int = 0
    pending_requests_count: int
    queues: dict[str, dict[str, Any]]


class ProcessEntry(BaseModel):
    """One desired model and its worker process; the process' values are 0 until it has started.

    A parked model has no ``process_id``. ``expires_at`` is when it will be parked if no job comes,
    ``waiting_since`` since when it waits for memory or another load, both in epoch seconds.
    ``memory_usage`` is what the process takes, in bytes, ``reserved_bytes`` what the machine set
    aside for it, ``prompt_cache_bytes`` the part of kept prompts.
    """

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    model_name: str
    model_path: str
    model_type: str
    context_length: int
    process_id: int | None
    cpu_usage: float
    memory_usage: int
    current_queue: CurrentQueue
    trust_remote_code: bool
    state: str
    origin: Literal["explicit", "auto"] = "explicit"
    ttl_s: float | None = None
    pinned: bool = False
    priority: int = 0
    idle_s: float | None = None
    expires_at: float | None = None
    waiting_since: float | None = None
    reserved_bytes: int | None = None
    prompt_cache_bytes: int | None = None
    load_fraction: float | None = None
    node: str | None = None


class NodeMemory(BaseModel):
    """The memory of a machine with a supervisor, in bytes.

    ``device_bytes``: what its GPU may hold. ``budget_bytes``: for all models together, and
    ``binding`` what sets it; ``None``: no limit. ``available_bytes``: what is not reserved of it.
    """

    node: str
    memory_bytes: int
    device_bytes: int | None
    budget_bytes: int | None
    binding: str | None
    reserved_bytes: int
    available_bytes: int | None


class Processes(BaseModel):
    """All models that are loaded, loading or parked, and the memory of the machines."""

    processes: list[ProcessEntry]
    nodes: list[NodeMemory] = []


class CleanUpBody(Body):
    """``timeout``: age in seconds from which a generation job of the ``class`` is removed.

    With ``dry_run`` they are only counted.
    """

    timeout: Annotated[float, number(0, 10 * 365 * 86400)]
    dry_run: Flag | None = None
    job_class: Literal["interactive", "batch", "all"] = Field("interactive", alias="class")

    @property
    def classes(self) -> tuple[JobClass, ...]:
        """The classes of the jobs that are removed."""
        return ("interactive", "batch") if self.job_class == "all" else (self.job_class,)


class CleanUpAnswer(BaseModel):
    """How many jobs were removed, or would be."""

    process_clean_up: Literal["success", "dry_run"] = "success"
    num_waiting: int
    num_running: int
