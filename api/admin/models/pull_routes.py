"""/v1/internal/model/pull and /delete: download a model of the hub, remove one from the disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.admin.models.loading import wait_for_supervisor
from api.admin.models.pull_schema import DeleteAnswer, DeleteBody, PullAnswer, PullBody, parse_repo
from api.admin.models.removal import remove_model
from api.dialects.openai.generation.answer_schema import JobAccepted
from api.execution.services import Services, ServicesDep
from api.execution.submissions import accepted, is_background, new_submission
from api.web.auth import ForManagers
from api.web.error_schema import ERRORS
from api.web.errors import Problem, ProblemError
from jobs.catalog.partial_downloads import remove_partial
from jobs.contract.errors import (
    ContractError,
    InvalidRequestError,
    JobNotFoundError,
    StorageLostError,
)
from jobs.contract.records import NodeStatus
from jobs.contract.pulls import PullRequest
from jobs.platform.current import current_platform
from jobs.storage import names
from jobs.storage.submitter import ABANDONED_TTL_S

router = APIRouter(
    prefix="/v1/internal/model", tags=["models"], responses=ERRORS, dependencies=[ForManagers]
)
_ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": JobAccepted}}


@router.post("/pull", response_model=PullAnswer, responses=_ACCEPTED)
async def pull(body: PullBody, request: Request, services: ServicesDep) -> PullAnswer | Response:
    """Download a model; answers when it is there. A disconnect does not stop the download.

    A repeated call gets the download that is waiting or running.
    """
    job_id = await start_pull(services, body)
    if is_background(request, body.background):
        return accepted(job_id)
    return PullAnswer(model_name=await finish_pull(services, job_id))


@router.post("/delete")
async def delete(body: DeleteBody, services: ServicesDep) -> DeleteAnswer:
    """Remove a model from the models folder, or what unfinished downloads have left."""
    in_thread, folder = services.runner.in_thread, services.settings.models_dir
    if body.partial:
        return DeleteAnswer(freed_bytes=await in_thread(remove_partial, folder, body.model))
    assert body.model is not None
    freed = await in_thread(
        remove_model, services.settings, services.desired_models.all, body.model
    )
    return DeleteAnswer(freed_bytes=freed)


async def start_pull(services: Services, body: PullBody) -> str:
    """The id of the job of a new pull, or of the same pull that is waiting or running."""
    if not services.settings.pull:
        message = "this server does not download models: see MGS_PULL"
        raise ProblemError(Problem(403, "permission_error", "pull_disabled", message))
    found = parse_repo(body.model)
    if found is None:
        message = "a model of the hub is publisher/model or publisher/model:QUANT"
        raise InvalidRequestError(f"model: {message}", "model")
    await wait_for_supervisor(services)
    node = _choose(await services.runner.in_thread(services.desired_models.nodes), body.node)
    repo, quant = found
    request = PullRequest(repo, node.uid, quant, body.revision, body.force)
    known = await services.runner.in_thread(_same_pull, services, request)
    if known is not None:
        return known
    label = f"{repo}:{quant}" if quant else repo
    submission = new_submission(services.runner, names.NO_MODEL, label, request, is_background=True)
    submission = replace(submission, facts={**submission.facts, "node": node.node})
    await services.runner.submit(submission)
    await services.runner.in_thread(services.desired_models.notify)  # wakes the supervisor
    return submission.job_id


async def finish_pull(services: Services, job_id: str) -> str:
    """The model's name, once it is there; raises why it is not."""
    try:
        end = await services.runner.wait_existing(job_id, ABANDONED_TTL_S)
    except JobNotFoundError:
        raise StorageLostError("Redis has lost its data: repeat the pull, it continues") from None
    return end.text


def _choose(nodes: list[NodeStatus], wanted: str | None) -> NodeStatus:
    """The node of that name or uid; without one the only node, or that of this machine."""
    here = current_platform().node_name()
    found = [node for node in nodes if wanted in (None, "", node.node, node.uid)]
    if not wanted and len(found) > 1:
        found = [node for node in found if node.node == here]
    if len(found) == 1:
        return found[0]
    known = ", ".join(sorted(f"{node.node} ({node.uid})" for node in nodes))
    raise InvalidRequestError(f"node: choose one machine of {known}", "node")


def _same_pull(services: Services, request: PullRequest) -> str | None:
    """The id of a waiting or running job with the same request."""
    store = services.store
    for record in store.records(store.pending_ids(names.PULL_SLUG, queues=[names.PULL_QUEUE])):
        if record.status.is_terminal or record.cancel:
            continue
        try:
            if store.request(record.job_id) == request:
                return record.job_id
        except (JobNotFoundError, ContractError):
            continue
    return None
