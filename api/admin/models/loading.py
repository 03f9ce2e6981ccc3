"""Load and unload: the wanted state changes first, by compare-and-set; a job reports the end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import replace
from typing import NamedTuple

from redis.exceptions import RedisError

from api.execution.resolve import finder_of
from api.execution.services import Services
from api.execution.submissions import new_job_id, new_submission
from jobs.contract.errors import (
    ContractError,
    JobNotFoundError,
    ModelConflictError,
    NotReadyError,
    StorageLostError,
)
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest, UnloadRequest
from jobs.storage import names
from jobs.storage.submitter import Submission
from jobs.storage.desired_models import last_unloaded, note_unload

_SUPERVISOR_WAIT_S = 3.0
_POLL_S = 0.1
_UNLOAD_TIMEOUT_S = 60.0
_MARGIN_S = 10.0
_TRIES = 20
_LOST = "Redis has lost its data: look what is loaded, and send the request again"


class _TakenAway(NamedTuple):
    """A desired model that was removed."""

    uid: str
    model_name: str


async def start_load(services: Services, model_id: str, load: LoadRequest) -> str:
    """Want the model under ``model_id``; the id of the job that loads it.

    Of a repeated call, the first one's. ``ModelConflictError`` when the id is in use otherwise.
    """
    await wait_for_supervisor(services)
    desired = _new_desired(model_id, load)
    standing = await _put(services, desired)
    if standing is not None:
        _check_same(standing, load)
        if not standing.was_ready:  # who wrote it may not have come to its job; the id makes it one
            await services.runner.submit(_load_job(services, standing))
        return standing.load_job
    try:
        await services.runner.submit(_load_job(services, desired))
    except BaseException:
        with contextlib.suppress(RedisError):
            await services.runner.in_thread(
                services.desired_models.remove, names.slug_of(model_id), desired.uid
            )
        raise
    return desired.load_job


def _new_desired(model_id: str, load: LoadRequest) -> DesiredModel:
    return DesiredModel(
        model_id=model_id,
        uid=secrets.token_hex(8),
        load=load,
        load_job=new_job_id(load),
        created_at=time.time(),
    )


def _load_job(services: Services, desired: DesiredModel) -> Submission:
    name = desired.load.model_name
    submission = new_submission(services.runner, desired.model_id, name, desired.load)
    return replace(submission, job_id=desired.load_job)


async def _put(services: Services, desired: DesiredModel) -> DesiredModel | None:
    """``None`` once the model is desired, or the one that had the id already."""
    slug = names.slug_of(desired.model_id)
    for _ in range(_TRIES):
        if await services.runner.in_thread(services.desired_models.put, slug, desired):
            return None
        try:
            standing = await services.runner.in_thread(services.desired_models.get, slug)
        except ContractError:
            message = f"model_id {desired.model_id!r} holds what cannot be read: unload it first"
            raise ModelConflictError(message, "X-Model-Id") from None
        if standing is not None:
            return standing
    raise NotReadyError(f"model_id {desired.model_id!r} keeps changing")


def _check_same(standing: DesiredModel, load: LoadRequest) -> None:
    if standing.load != load:
        raise ModelConflictError(
            f"model_id {standing.model_id!r} is in use by {standing.load.model_name!r}"
            + (" with other options" if standing.load.model_name == load.model_name else ""),
            "X-Model-Id",
        )


async def finish_load(services: Services, model_id: str, job_id: str) -> None:
    """Return when the model is ready; raises why it is not."""
    timeout_s = services.settings.load_timeout_s + _MARGIN_S
    try:
        await services.runner.wait_existing(job_id, timeout_s)
    except JobNotFoundError:
        # A load of long ago has no record any more: what stands has been ready since.
        desired = (await services.runner.desired_models()).get(names.slug_of(model_id))
        if desired is None or not desired.was_ready:
            raise StorageLostError(_LOST) from None


async def start_unload(services: Services, model_id: str) -> str:
    """Stop wanting the model; the id of the job that ends when its process is gone.

    Of a call repeated before or after that, the first one's. ``ModelNotFoundError`` when nothing
    was loaded there lately.
    """
    await wait_for_supervisor(services)
    desired = await _take_away(services, model_id)
    if desired is None:
        finder = await finder_of(services)
        raise finder.not_loaded(model_id, "X-Model-Id")
    submission = new_submission(services.runner, model_id, desired.model_name, UnloadRequest())
    # The worker takes it by this id; whoever repeats the call submits the same one.
    submission = replace(submission, job_id=names.unload_job_id(desired.uid))
    await services.runner.submit(submission)
    return submission.job_id


async def finish_unload(services: Services, job_id: str) -> None:
    """Return when the process is gone."""
    try:
        await services.runner.wait_existing(job_id, _UNLOAD_TIMEOUT_S)
    except JobNotFoundError:
        raise StorageLostError(_LOST) from None


async def _take_away(services: Services, model_id: str) -> _TakenAway | None:
    """The desired model that had the id, or the last one that did."""
    slug = names.slug_of(model_id)
    for _ in range(_TRIES):
        try:
            desired = await services.runner.in_thread(services.desired_models.get, slug)
        except ContractError:
            return await _discard(services, slug)
        if desired is None:
            last = await last_unloaded(services.redis, slug)
            return _TakenAway(last.uid, last.load.model_name) if last is not None else None
        await note_unload(services.redis, slug, desired, services.settings.log_ttl_s)
        if await services.runner.in_thread(services.desired_models.remove, slug, desired.uid):
            return _TakenAway(desired.uid, desired.load.model_name)
    raise NotReadyError(f"model_id {model_id!r} keeps changing")


async def _discard(services: Services, slug: str) -> _TakenAway:
    """Remove an entry that cannot be read; its worker, if there is one, tells whose it is."""
    await services.runner.in_thread(services.desired_models.discard, slug)
    status = (await services.runner.in_thread(services.desired_models.statuses, [slug])).get(slug)
    if status is None:
        return _TakenAway(secrets.token_hex(8), "")
    return _TakenAway(status.desired_uid, status.model_name)


async def wait_for_supervisor(services: Services) -> None:
    """``NotReadyError`` when no supervisor shows up: nobody would start or stop the process."""
    deadline = time.monotonic() + _SUPERVISOR_WAIT_S
    while not await services.runner.in_thread(services.desired_models.nodes):
        if time.monotonic() >= deadline:
            raise NotReadyError(
                "no supervisor is running: start `python -m workers.supervision.supervisor`"
            )
        await asyncio.sleep(_POLL_S)
