"""/management: the processes and their queues, and the removal of old jobs."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter

from api.admin.jobs.management_schema import CleanUpAnswer, CleanUpBody, Processes
from api.admin.jobs.processes import list_nodes, list_processes
from api.dialects.openai.generation.routes import ModelIdHeader
from api.execution.resolve import resolve_loaded
from api.execution.services import Services, ServicesDep
from api.web.auth import ForManagers
from api.web.error_schema import ERRORS
from jobs.contract.records import JobStatus
from jobs.storage import names

router = APIRouter(
    prefix="/management", tags=["management"], responses=ERRORS, dependencies=[ForManagers]
)


@router.get("/processes")
async def processes(services: ServicesDep) -> Processes:
    """Every model that is loaded or loading, its process, and the jobs that wait or run."""
    entries = await services.runner.in_thread(list_processes, services)
    nodes = await services.runner.in_thread(list_nodes, services)
    return Processes(processes=entries, nodes=nodes)


@router.post("/process/clean-up")
async def clean_up(
    body: CleanUpBody, services: ServicesDep, x_model_id: ModelIdHeader = None
) -> CleanUpAnswer:
    """End the model's generation jobs that were queued more than ``timeout`` seconds ago.

    Those of the class ``batch`` are spared unless ``class`` names them.
    """
    desired = await resolve_loaded(services, x_model_id)
    slug = names.slug_of(desired.model_id)
    if body.dry_run:
        waiting, running = await services.runner.in_thread(_count, services, slug, body)
        return CleanUpAnswer(process_clean_up="dry_run", num_waiting=waiting, num_running=running)
    purge = services.store.purge
    waiting, running = await services.runner.in_thread(purge, slug, body.timeout, body.classes)
    return CleanUpAnswer(num_waiting=waiting, num_running=running)


def _count(services: Services, slug: str, body: CleanUpBody) -> tuple[int, int]:
    """How many jobs a clean-up would end now: waiting, running."""
    old = services.store.purger.old(slug, body.timeout, body.classes)
    counts = Counter(record.status for record in old)
    return counts[JobStatus.QUEUED], counts[JobStatus.RUNNING]
