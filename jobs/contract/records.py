"""Records in Redis: jobs, desired models, workers, nodes. Frozen values with their codecs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec

from jobs.contract.errors import ContractError, ErrorInfo
from jobs.contract.requests import LoadRequest, Task


class JobStatus(StrEnum):
    """Status of a job. The last three are terminal: a job never leaves them."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


DeathCount = Literal["deaths", "device_losses"]
"""The fields of a job's record that count what it may have caused."""


JobClass = Literal["interactive", "batch"]
"""Batch jobs yield to interactive ones. Jobs of control queues count as interactive."""


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of one job: the hash ``mgs:job:<id>``, readable in redis-cli.

    Times are epoch seconds of Redis' clock. ``attempt`` is 0 until a worker opens the first
    attempt. ``deaths`` counts the workers that this job may have killed, ``device_losses`` the
    failures of a GPU, and stalls on a shared one, that it may have caused. ``cancel`` is the reason
    of a requested cancel. A job that ``is_deleted`` is never shown. ``api`` names the dialect of a
    generation, ``prompt_chars`` is the length of its prompts, in tokens where those are tokens;
    both are for people. Jobs of lower ``priority`` are taken first, and end at ``deadline_at``.
    ``weight`` and ``max_running`` are the caller's: its share of the model, its running sequences
    (0: no limit). ``batch`` and ``line`` (from 1) say whose line the job is, ``yields`` how often
    it gave way to others,
    ``retry_of`` of which job it is a repetition. The use of the key is counted under the name
    ``model``; of its tokens per minute, ``reserved_tokens`` were counted before the job ran.
    """

    job_id: str
    task: Task
    model_id: str
    queue: str
    status: JobStatus
    created_at: float
    attempt: int = 0
    deaths: int = 0
    device_losses: int = 0
    worker: str = ""
    cancel: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    error_code: str = ""
    is_background: bool = False
    owner: str = ""
    caller: str = ""
    is_deleted: bool = False
    api: str = ""
    prompt_chars: int = 0
    job_class: JobClass = "interactive"
    priority: int = 0
    deadline_at: float | None = None
    weight: float = 1.0
    max_running: int = 0
    batch: str = ""
    line: int = 0
    yields: int = 0
    retry_of: str = ""
    model: str = ""
    reserved_tokens: int = 0

    @classmethod
    def from_redis(cls, job_id: str, fields: Mapping[bytes, bytes]) -> JobRecord:
        """Read the hash. Raises ``ContractError`` when it is not a job record."""
        text = {_text(key): _text(value) for key, value in fields.items()}
        try:
            return msgspec.convert({**text, "job_id": job_id}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ContractError(f"the record of job {job_id} cannot be read: {error}") from error

    def to_redis(self) -> dict[str, str | int | float]:
        fields = msgspec.to_builtins(self)
        del fields["job_id"]
        if self.weight == 1:
            fields.pop("weight", None)  # omit_defaults compares numbers by identity
        return {key: int(value) if value is True else value for key, value in fields.items()}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


class DesiredModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model that should be loaded under ``model_id``, on any machine that can load it.

    ``uid`` distinguishes it from earlier models of the same id. ``was_ready`` is set after the
    first successful load: from then on a failed load is retried. A model that ``is_parked`` has no
    process until a job or a load asks for it. ``origin`` says who loaded it: a person or program by
    name, or a request for it. After ``ttl_s`` without a job it is parked; ``None``: never. A
    ``pinned`` model is never parked, one of lower ``priority`` is parked before others.
    """

    model_id: str
    uid: str
    load: LoadRequest
    load_job: str
    created_at: float
    was_ready: bool = False
    is_parked: bool = False
    origin: Literal["explicit", "auto"] = "explicit"
    ttl_s: float | None = None
    pinned: bool = False
    priority: int = 0


class WorkerState(StrEnum):
    """State of a worker process."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


Phase = Literal["prefill", "decode", "embed"]


class RunningJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a running job is. ``prefilled_tokens`` includes those found in the prompt cache."""

    job_id: str
    phase: Phase
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    generated_tokens: int = 0
    attempt: int = 0
    job_class: JobClass = "interactive"


class WorkerStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker's heartbeat. It expires when the heartbeats stop.

    ``cpu_percent`` covers the last heartbeat's interval (100 = one core). ``memory_bytes`` is what
    the process costs (macOS: its footprint, Linux: its proportional set; of a GPU with memory of
    its own, that), ``cache_bytes`` what the engine's library keeps of freed memory,
    ``prompt_cache_bytes`` the kept prompts, ``reserved_bytes`` the memory that the machine set
    aside for it. ``running`` counts jobs, ``sequences`` their sequences. ``idle_s`` is the time
    since the decode loop's last step while it has work, ``unused_s`` the time since the last job
    ended, 0 while one runs, ``interactive_unused_s`` the same without the batch queue.
    ``prefilled_tokens`` (without those found in the prompt cache: ``cached_tokens``), those of them
    that jobs which gave way had read before (``reread_tokens``) and ``generated_tokens`` count from
    the worker's start to ``beat_at``, in epoch seconds. ``jobs`` has a line per running job, at
    most 100. ``starts_per_s`` says how many generations of a class
    started a second of late, for classes with enough of them. ``is_on_gpu`` says whether the loaded
    model computes on a GPU.
    """

    model_id: str
    state: WorkerState
    pid: int
    node: str
    names: list[str]
    desired_uid: str = ""
    model_name: str = ""
    model_path: str = ""
    backend: str = ""
    context_length: int = 0
    vocab_size: int = 0
    architecture: str = ""
    quantization: str = ""
    num_parameters: int | None = None
    slots: int = 0
    running: int = 0
    sequences: int = 0
    waiting: int = 0
    unpublished: int = 0
    load_fraction: float | None = None
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    cache_bytes: int = 0
    prompt_cache_bytes: int = 0
    idle_s: float = 0.0
    unused_s: float = 0.0
    interactive_unused_s: float | None = None
    reserved_bytes: int = 0
    started_at: float = 0.0
    error: ErrorInfo | None = None
    beat_at: float = 0.0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    reread_tokens: int = 0
    jobs: list[RunningJob] = []
    starts_per_s: dict[JobClass, float] = {}
    is_on_gpu: bool = False


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A supervisor's heartbeat. ``crashes`` counts dead workers by slug.

    ``node`` is the machine's name, for people. ``uid`` identifies the node, ``token`` its current
    supervisor process. ``reserved`` has the bytes set aside for the models with a process, by slug,
    ``waiting`` the models that wait here for memory or for another load, with the time since when.
    ``memory_bytes`` is what processes may use, ``device_bytes`` what the GPU may hold, 0 without
    one. ``budget_bytes`` is for all models together, ``None`` without a limit; ``binding`` says
    what sets it (``jobs/memory/budget.py``).
    """

    node: str
    pid: int
    memory_bytes: int
    num_workers: int = 0
    crashes: dict[str, int] = {}
    uid: str = ""
    token: str = ""
    reserved: dict[str, int] = {}
    waiting: dict[str, float] = {}
    device_bytes: int = 0
    budget_bytes: int | None = None
    binding: str = ""


_Record = TypeVar("_Record", DesiredModel, WorkerStatus, NodeStatus)


def encode_record(record: DesiredModel | WorkerStatus | NodeStatus) -> bytes:
    """The record as JSON. Equal values give equal bytes."""
    return msgspec.json.encode(record)


def change_record(data: bytes, **fields: Any) -> bytes:
    """Replace ``fields`` in an encoded record. Fields that this version does not know stay."""
    try:
        members: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ContractError(f"a record cannot be changed: {error}") from error
    return msgspec.json.encode(members | msgspec.to_builtins(fields))


def decode_record(kind: type[_Record], data: bytes) -> _Record:
    """Decode a record. Raises ``ContractError`` when it is not of that kind."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"a {kind.__name__} record cannot be read: {error}") from error
