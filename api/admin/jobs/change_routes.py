"""/v1/jobs: repeat a job, hand a running one back to its queue, change a priority."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api.admin.jobs.repeating import repeat
from api.admin.jobs.schema import JobAnswer, JobChanges
from api.admin.jobs.views import job_with_result, shown_record
from api.admin.jobs.waiting import accepted_job
from api.dialects.openai.generation.answer_schema import JobAccepted
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from jobs.contract.errors import JobConflictError
from jobs.contract.records import JobRecord, JobStatus
from jobs.contract.requests import Task
from jobs.scheduling.waiting_order import WaitingOrder

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=ERRORS)


@router.post("/{job_id}/retry", status_code=202, response_model=JobAccepted)
async def retry_job(job_id: str, services: ServicesDep) -> Response:
    """Do a job that has ended once more, in the background and under a new id."""
    record = await services.runner.in_thread(shown_record, services.store, job_id, services.caller)
    submission = await repeat(services, record)
    return await accepted_job(services, submission.job_id)


@router.post("/{job_id}/requeue", status_code=202)
async def requeue_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """Hand a running background or flex job back to its queue; it goes on from what it has said."""
    return await services.runner.in_thread(_requeue, services, job_id)


@router.patch("/{job_id}")
async def change_job(job_id: str, body: JobChanges, services: ServicesDep) -> JobAnswer:
    """Change the priority of a job while it waits."""
    return await services.runner.in_thread(_reprioritize, services, job_id, body)


def _requeue(services: Services, job_id: str) -> JobAnswer:
    record = shown_record(services.store, job_id, services.caller)
    _check_yields(record)
    services.store.send_yield(record.worker, job_id)
    return job_with_result(services, job_id)


def _check_yields(record: JobRecord) -> None:
    """``JobConflictError`` for a job that cannot go back to its queue, or need not."""
    if record.task is not Task.GENERATE:
        raise JobConflictError("only generations are handed back to their queue", "job_id")
    if record.status is JobStatus.QUEUED:
        raise JobConflictError("the job is on its queue already", "job_id")
    if record.status.is_terminal:
        raise JobConflictError(f"the job has ended, it is {record.status}: retry it", "job_id")
    if not record.is_background and record.job_class == "interactive":
        raise JobConflictError("a client waits for the job's answer", "job_id")


def _reprioritize(services: Services, job_id: str, body: JobChanges) -> JobAnswer:
    record = shown_record(services.store, job_id, services.caller)
    if record.task is not Task.GENERATE:
        raise JobConflictError("priority: only generations have one", "priority")
    priority = services.caller.clamped(body.priority)
    order, aging_s = WaitingOrder(services.store), services.settings.aging_s
    order.change_priority(record, priority, aging_s)
    return job_with_result(services, job_id)
