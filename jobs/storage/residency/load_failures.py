"""Failed loads of models that requests asked for, so that each request need not try again."""

from __future__ import annotations

import time

import msgspec

from jobs.contract.errors import ErrorInfo, JobError
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis

_FIRST_DELAY_S = 5.0
_MAX_DELAY_S = 300.0
_REMEMBERED_S = 3600


class LoadFailure(msgspec.Struct, frozen=True):
    """The last failure. ``fingerprint`` is of the model's files, ``retry_at`` in epoch seconds."""

    error: ErrorInfo
    fingerprint: str
    num_failures: int
    retry_at: float


def note_load_failure(redis: SyncRedis, slug: str, error: ErrorInfo, fingerprint: str) -> None:
    """Count the failure. The next try is due after 5 s, then 10, 20 ... 300 s."""
    last = _read(redis.get(names.load_failure_key(slug)))
    is_same = last is not None and last.fingerprint == fingerprint
    count = (last.num_failures if last is not None and is_same else 0) + 1
    delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(count - 1, 10))
    failure = LoadFailure(error, fingerprint, count, time.time() + delay_s)
    data = msgspec.json.encode(failure)
    redis.set(names.load_failure_key(slug), data, ex=_REMEMBERED_S)


async def check_load_failure(redis: AsyncRedis, slug: str, fingerprint: str) -> None:
    """Raise the error of the last load, unless another try is due or the files have changed."""
    last = _read(await redis.get(names.load_failure_key(slug)))
    if last is not None and last.fingerprint == fingerprint and time.time() < last.retry_at:
        raise JobError.from_info(last.error)


def _read(data: bytes | None) -> LoadFailure | None:
    try:
        return msgspec.json.decode(data, type=LoadFailure) if data else None
    except msgspec.DecodeError:
        return None
