"""One tree of errors that can end a job, each with a stable code.

They cross processes as ``ErrorInfo`` inside events; HTTP statuses live in ``api/web/errors.py``.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job error on the wire: stable ``code``, message for people, the parameter at fault."""

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
    """A valid parameter that this engine or model cannot honour."""

    code = "unsupported_parameter"


class ContextLengthExceededError(InvalidRequestError):
    """Prompt and answer do not fit in the model's context."""

    code = "context_length_exceeded"


class GrammarError(JobError):
    """The answer cannot be held to its grammar any further: what there is of it is half a text."""

    code = "grammar_failed"


class ModelNotFoundError(JobError):
    """No model of that name on disk, or no model loaded under that id."""

    code = "model_not_found"


class AdapterNotFoundError(JobError):
    """No LoRA adapter of that name in the adapters folder, or none for this kind of model."""

    code = "adapter_not_found"


class ModelConflictError(JobError):
    """The model_id is in use by another model or with other options."""

    code = "model_id_in_use"


class ModelLoadError(JobError):
    """The model could not be loaded: the message says what is wrong with it."""

    code = "model_load_failed"


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
    """No job of that id, or its record has expired."""

    code = "job_not_found"


class StorageLostError(JobError):
    """Redis has lost the job: it was emptied, or came back without its data."""

    code = "storage_lost"


class JobTimeoutError(JobError):
    """A deadline of the job has passed."""

    code = "job_timeout"


class ShuttingDownError(JobError):
    """The process that held the job is stopping."""

    code = "shutting_down"


class NotReadyError(JobError):
    """A part of the system that the job needs is not there (supervisor, Redis)."""

    code = "not_ready"


class ContractError(JobError):
    """A job or event that cannot be decoded, or names a version or task that is not ours."""

    code = "bad_contract"


class EngineError(JobError):
    """The engine failed on this sequence."""

    code = "engine_error"


class QueueFullError(JobError):
    """The model's queue holds as many jobs as it may."""

    code = "queue_full"


class TooManyJobsError(JobError):
    """As many jobs wait or run as may, of one key or of all."""

    code = "too_many_jobs"
