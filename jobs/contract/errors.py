"""The errors that can end a job. Each class has a stable code.

Processes pass them on as ``ErrorInfo`` inside events. ``api/web/errors.py`` maps them to HTTP.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job error as data: stable ``code``, message for people, the request field at fault."""

    code: str
    message: str
    param: str | None = None


class JobError(Exception):
    """Base of every error that ends a job. ``param`` names the request field at fault."""

    code: ClassVar[str] = "internal_error"
    registry: ClassVar[dict[str, type[JobError]]] = {}

    def __init__(self, message: str, param: str | None = None) -> None:
        message = message.encode(errors="replace").decode()  # a lone surrogate cannot be sent
        super().__init__(message)
        self.message = message
        self.param = param

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__:  # otherwise it is its parent to everyone else
            JobError.registry[cls.code] = cls

    def to_info(self) -> ErrorInfo:
        return ErrorInfo(code=self.code, message=self.message, param=self.param)

    @staticmethod
    def from_info(info: ErrorInfo) -> JobError:
        """The error that ``info`` describes; an unknown code becomes a plain ``JobError``."""
        return JobError.registry.get(info.code, JobError)(info.message, info.param)


class InvalidRequestError(JobError):
    """A value in the request is wrong."""

    code = "invalid_request"


class UnsupportedParameterError(InvalidRequestError):
    """The parameter is valid, but this engine or model does not support it."""

    code = "unsupported_parameter"


class ContextLengthExceededError(InvalidRequestError):
    """Prompt and answer do not fit in the model's context."""

    code = "context_length_exceeded"


class GrammarError(JobError):
    """The engine cannot enforce the grammar any further, so the answer is incomplete."""

    code = "grammar_failed"


class ModelNotFoundError(JobError):
    """There is no model of that name on disk, or no model is loaded under that id."""

    code = "model_not_found"


class AdapterNotFoundError(JobError):
    """The adapters folder has no LoRA adapter of that name for this kind of model."""

    code = "adapter_not_found"


class ModelConflictError(JobError):
    """The model_id is in use by another model or with other options."""

    code = "model_id_in_use"


class ModelLoadError(JobError):
    """The model could not be loaded. The message gives the reason."""

    code = "model_load_failed"


class InsufficientMemoryError(JobError):
    """The model can never fit in the machine's memory. The message has figures and a remedy."""

    code = "insufficient_memory"


class NoRoomError(JobError):
    """The model waited for memory that others use, or for its load, for too long."""

    code = "no_room"


class ModelUnloadedError(JobError):
    """The model was unloaded while the job waited or ran."""

    code = "model_unloaded"


class WorkerLostError(JobError):
    """The worker process died while it held the job."""

    code = "worker_lost"


class JobCancelledError(JobError):
    """The job was cancelled or purged."""

    code = "job_cancelled"


class JobNotFoundError(JobError):
    """There is no job of that id, or its record has expired."""

    code = "job_not_found"


def no_job(job_id: str) -> JobNotFoundError:
    """The error for an id that is unknown or expired, or another caller's."""
    return JobNotFoundError(f"there is no job {job_id[:80]!r}", "job_id")


class JobConflictError(JobError):
    """The job is not in the state that the request needs."""

    code = "job_conflict"


class StorageLostError(JobError):
    """Redis has lost the job: it was emptied, or restarted without its data."""

    code = "storage_lost"


class JobTimeoutError(JobError):
    """A deadline of the job has passed."""

    code = "job_timeout"


def deadline_passed() -> JobTimeoutError:
    """The error of a job whose own deadline (``deadline_s``) has passed."""
    return JobTimeoutError("deadline_s: it has passed", "deadline_s")


class ShuttingDownError(JobError):
    """The process that held the job is stopping."""

    code = "shutting_down"


class NotReadyError(JobError):
    """A process that the job needs is not available (supervisor, Redis)."""

    code = "not_ready"


class ContractError(JobError):
    """A job or event cannot be decoded, or has an unknown version or task."""

    code = "bad_contract"


class EngineError(JobError):
    """The engine failed while it processed this sequence."""

    code = "engine_error"


class QueueFullError(JobError):
    """The model's queue is full."""

    code = "queue_full"


class TooManyJobsError(JobError):
    """The limit of waiting and running jobs is reached, for one API key or for all."""

    code = "too_many_jobs"


class KeyLimitError(TooManyJobsError):
    """A limit of the API key is reached. After ``retry_after_s`` another try may succeed."""

    code = "key_limit"
    retry_after_s: float = 1.0


class RateLimitError(KeyLimitError):
    """The key's requests or tokens of this minute are used up."""

    code = "rate_limit_exceeded"


class KeyPermissionError(JobError):
    """The API key is not for this."""

    code = "key_not_allowed"


class ModelBusyError(JobError):
    """Jobs of the model prevent a change of it."""

    code = "model_busy"


class ModelDrainingError(JobError):
    """Somebody drains the model: it takes no new jobs of this class."""

    code = "model_draining"


class PullError(JobError):
    """A model could not be downloaded. Repeating the pull continues where it ended."""

    code = "pull_failed"


class RepoNotFoundError(PullError):
    """The hub has no such repository, revision or choice, or does not show it."""

    code = "repo_not_found"


class RepoAccessError(PullError):
    """The repository needs a token, or one with access."""

    code = "repo_access_denied"


class HubUnreachableError(PullError):
    """The hub does not answer, or the machine is offline."""

    code = "hub_unreachable"


class HubRateLimitedError(PullError):
    """The hub takes no more requests for a while."""

    code = "hub_rate_limited"


class HubChangedError(PullError):
    """The repository was changed while it was downloaded."""

    code = "repo_changed"


class FileCorruptError(PullError):
    """A downloaded file has not the content that the hub has announced."""

    code = "file_corrupt"


class DiskFullError(PullError):
    """The disk has no room for the model or the file."""

    code = "disk_full"
