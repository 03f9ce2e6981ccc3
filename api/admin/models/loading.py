"""Load and unload: first the desired model changes, by compare-and-set; a job reports the end."""

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
    ModelUnloadedError,
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
_LOST = "Redis has lost its data: check which models are loaded, and repeat the request"


class _RemovedModel(NamedTuple):
    """A desired model that was removed."""

    uid: str
    model_name: str


class Keeping(NamedTuple):
    """How long a model keeps its process, see ``DesiredModel``."""

    ttl_s: float | None = None
    pinned: bool = False
    priority: int = 0


async def start_load(
    services: Services, model_id: str, load: LoadRequest, keeping: Keeping = Keeping()
) -> str:
    """Write the desired model; returns the id of its load job.

    A repeated call gets the id of the first, and ``keeping`` of the last one counts. A parked model
    is resumed. ``ModelConflictError`` when the model_id is in use by another model or with other
    options.
    """
    await wait_for_supervisor(services)
    desired = _new_desired(model_id, load, keeping)
    existing = await _put(services, desired)
    if existing is not None:
        _check_same(existing, load)
        current = await _resume(services, existing, keeping)
        if not current.was_ready or current.load_job != existing.load_job:
            # Its load job may be missing; a second is ignored by its id.
            await services.runner.submit(_load_job(services, current))
        return current.load_job
    try:
        await services.runner.submit(_load_job(services, desired))
    except BaseException:
        with contextlib.suppress(RedisError):
            await services.runner.in_thread(
                services.desired_models.remove, names.slug_of(model_id), desired.uid
            )
        raise
    return desired.load_job


async def _resume(
    services: Services, existing: DesiredModel, keeping: Keeping
) -> DesiredModel:
    """The entry with ``keeping``, resident; with a new load job if it was parked."""
    current = await services.runner.in_thread(
        services.desired_models.resume,
        names.slug_of(existing.model_id),
        existing.uid,
        new_job_id(existing.load),
        origin="explicit",
        **keeping._asdict(),
    )
    if current is None:
        raise ModelUnloadedError(f"model_id {existing.model_id!r} was unloaded meanwhile")
    return current


def _new_desired(model_id: str, load: LoadRequest, keeping: Keeping) -> DesiredModel:
    return DesiredModel(
        model_id=model_id,
        uid=secrets.token_hex(8),
        load=load,
        load_job=new_job_id(load),
        created_at=time.time(),
        **keeping._asdict(),
    )


def _load_job(services: Services, desired: DesiredModel) -> Submission:
    name = desired.load.model_name
    submission = new_submission(services.runner, desired.model_id, name, desired.load)
    return replace(submission, job_id=desired.load_job)


async def _put(services: Services, desired: DesiredModel) -> DesiredModel | None:
    """Write the desired model: ``None``, or the model that already has the model_id."""
    slug = names.slug_of(desired.model_id)
    for _ in range(_TRIES):
        if await services.runner.in_thread(services.desired_models.put, slug, desired):
            return None
        try:
            existing = await services.runner.in_thread(services.desired_models.get, slug)
        except ContractError:
            message = f"model_id {desired.model_id!r} has an entry that cannot be decoded: unload it first"
            raise ModelConflictError(message, "X-Model-Id") from None
        if existing is not None:
            return existing
    raise NotReadyError(f"model_id {desired.model_id!r} keeps changing")


def _check_same(existing: DesiredModel, load: LoadRequest) -> None:
    if existing.load != load:
        raise ModelConflictError(
            f"model_id {existing.model_id!r} is in use by {existing.load.model_name!r}"
            + (" with other options" if existing.load.model_name == load.model_name else ""),
            "X-Model-Id",
        )


async def finish_load(services: Services, model_id: str, job_id: str) -> None:
    """Return when the model is ready; raises why it is not."""
    timeout_s = services.settings.load_timeout_s + _MARGIN_S
    try:
        await services.runner.wait_existing(job_id, timeout_s)
    except JobNotFoundError:
        # The record of an old load has expired; then the desired model has been ready since.
        desired = (await services.runner.desired_models()).get(names.slug_of(model_id))
        if desired is None or not desired.was_ready:
            raise StorageLostError(_LOST) from None


async def start_unload(services: Services, model_id: str) -> str:
    """Remove the desired model; returns the id of the job that ends when its process has ended.

    A repeated call gets the id of the first. ``ModelNotFoundError`` when no model is loaded under
    the id, and none was unloaded within ``MGS_LOG_TTL_S``.
    """
    await wait_for_supervisor(services)
    desired = await _remove_desired(services, model_id)
    if desired is None:
        finder = await finder_of(services)
        raise finder.not_loaded(model_id, "X-Model-Id")
    submission = new_submission(services.runner, model_id, desired.model_name, UnloadRequest())
    # The worker takes the job by this id; a repeated call submits the same id.
    submission = replace(submission, job_id=names.unload_job_id(desired.uid))
    await services.runner.submit(submission)
    return submission.job_id


async def finish_unload(services: Services, job_id: str) -> None:
    """Return when the process has ended."""
    try:
        await services.runner.wait_existing(job_id, _UNLOAD_TIMEOUT_S)
    except JobNotFoundError:
        raise StorageLostError(_LOST) from None


async def _remove_desired(services: Services, model_id: str) -> _RemovedModel | None:
    """Remove the desired model; returns it, or the one that was unloaded last."""
    slug = names.slug_of(model_id)
    for _ in range(_TRIES):
        try:
            desired = await services.runner.in_thread(services.desired_models.get, slug)
        except ContractError:
            return await _discard(services, slug)
        if desired is None:
            last = await last_unloaded(services.redis, slug)
            return _RemovedModel(last.uid, last.load.model_name) if last is not None else None
        await note_unload(services.redis, slug, desired, services.settings.log_ttl_s)
        if await services.runner.in_thread(services.desired_models.remove, slug, desired.uid):
            return _RemovedModel(desired.uid, desired.load.model_name)
    raise NotReadyError(f"model_id {model_id!r} keeps changing")


async def _discard(services: Services, slug: str) -> _RemovedModel:
    """Remove an entry that cannot be decoded; uid and name are those of its worker, if any."""
    await services.runner.in_thread(services.desired_models.discard, slug)
    status = (await services.runner.in_thread(services.desired_models.statuses, [slug])).get(slug)
    if status is None:
        return _RemovedModel(secrets.token_hex(8), "")
    return _RemovedModel(status.desired_uid, status.model_name)


async def wait_for_supervisor(services: Services) -> None:
    """Wait up to 3 s; ``NotReadyError`` without a supervisor to start or stop the process."""
    deadline = time.monotonic() + _SUPERVISOR_WAIT_S
    while not await services.runner.in_thread(services.desired_models.nodes):
        if time.monotonic() >= deadline:
            raise NotReadyError(
                "no supervisor is running: start `python -m workers.supervision.supervisor`"
            )
        await asyncio.sleep(_POLL_S)
