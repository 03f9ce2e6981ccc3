"""Load and unload: the wanted state changes first, by compare-and-set; a job reports the end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import replace

from redis.exceptions import RedisError

from api.services import Services
from api.tickets import new_submission
from jobs import names
from jobs.errors import (
    JobNotFoundError,
    ModelConflictError,
    ModelNotFoundError,
    NotReadyError,
)
from jobs.records import Want
from jobs.requests import LoadRequest, UnloadRequest
from jobs.submission import Submission

_SUPERVISOR_WAIT_S = 3.0
_POLL_S = 0.1
_UNLOAD_TIMEOUT_S = 60.0
_MARGIN_S = 10.0


async def start_load(services: Services, model_id: str, load: LoadRequest) -> str:
    """Want the model under ``model_id``; the id of the job that loads it.

    Of a repeated call, the first one's. ``ModelConflictError`` when the id is in use otherwise.
    """
    await wait_for_supervisor(services)
    submission, want = _new_want(services, model_id, load)
    slug = names.slug_of(model_id)
    if not await services.runner.in_thread(services.wants.put, slug, want):
        standing = await services.runner.in_thread(services.wants.get, slug)
        if standing is not None:
            return _same_load(standing, load)
        raise NotReadyError(f"model_id {model_id!r} is being unloaded")
    try:
        await services.runner.submit(submission)
    except BaseException:
        with contextlib.suppress(RedisError):
            await services.runner.in_thread(services.wants.remove, slug, want.uid)
        raise
    return want.load_job


def _new_want(services: Services, model_id: str, load: LoadRequest) -> tuple[Submission, Want]:
    submission = new_submission(services.runner, model_id, load.model_name, load)
    want = Want(
        model_id=model_id,
        uid=secrets.token_hex(8),
        load=load,
        load_job=submission.job_id,
        created_at=time.time(),
    )
    return submission, want


def _same_load(standing: Want, load: LoadRequest) -> str:
    if standing.load != load:
        raise ModelConflictError(
            f"model_id {standing.model_id!r} is in use by {standing.load.model_name!r}"
            + (" with other options" if standing.load.model_name == load.model_name else ""),
            "X-Model-Id",
        )
    return standing.load_job


async def finish_load(services: Services, job_id: str) -> None:
    """Return when the model is ready; raises why it is not."""
    timeout_s = services.settings.load_timeout_s + _MARGIN_S
    # A load of long ago has no record any more: what stands has been ready since.
    with contextlib.suppress(JobNotFoundError):
        await services.runner.wait_existing(job_id, timeout_s)


async def start_unload(services: Services, model_id: str) -> str:
    """Stop wanting the model; the id of the job that ends when its process is gone."""
    await wait_for_supervisor(services)
    want = await _take_want_away(services, model_id)
    name, request = want.load.model_name, UnloadRequest()
    submission = new_submission(services.runner, model_id, name, request)
    # The want's worker takes it by this id.
    submission = replace(submission, job_id=names.unload_job_id(want.uid))
    await services.runner.submit(submission)
    return submission.job_id


async def finish_unload(services: Services, job_id: str) -> None:
    """Return when the process is gone."""
    await services.runner.wait_existing(job_id, _UNLOAD_TIMEOUT_S)


async def _take_want_away(services: Services, model_id: str) -> Want:
    """The want that stood."""
    want = await services.runner.in_thread(services.wants.remove, names.slug_of(model_id))
    if want is None:
        raise ModelNotFoundError(f"no model is loaded under model_id {model_id!r}", "X-Model-Id")
    return want


async def wait_for_supervisor(services: Services) -> None:
    """``NotReadyError`` when no supervisor shows up: nobody would start or stop the process."""
    deadline = time.monotonic() + _SUPERVISOR_WAIT_S
    while not await services.runner.in_thread(services.wants.nodes):
        if time.monotonic() >= deadline:
            raise NotReadyError("no supervisor is running: start `python -m workers.supervisor`")
        await asyncio.sleep(_POLL_S)
