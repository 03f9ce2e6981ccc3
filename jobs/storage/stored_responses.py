"""Stored responses in Redis: what a response was asked with, and, once it has ended, what it said.

Until it has ended its job's log says that. The two are fields of one hash, which expires.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from jobs.contract.errors import ContractError, JobNotFoundError
from jobs.storage import names
from jobs.storage.connection import AsyncRedis, SyncRedis
from jobs.storage.lua import job_scripts
from jobs.storage.submitter import Submission

VERSION = 1
_RECORD = "record"
_ANSWER = "answer"
_ID = re.compile(r"resp_[0-9a-f]{32}")


class StoredResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of a response but what its job's events say; ``response_id`` is the job's id.

    ``created_at`` is in epoch seconds. ``echo`` holds the request's fields as the response repeats
    them. ``items`` is the whole input, with that of the responses it follows on.
    """

    response_id: str
    created_at: int
    model: str
    echo: dict[str, Any]
    items: list[dict[str, Any]]
    is_background: bool = False
    v: int = VERSION


_decoder = msgspec.json.Decoder(StoredResponse)


def encode_response(record: StoredResponse) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_response(data: bytes) -> StoredResponse:
    """The record in ``data``, or ``ContractError`` for anything else (also another version)."""
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the stored response cannot be read: {error}") from error
    if record.v != VERSION:
        raise ContractError(f"response version {record.v} is not {VERSION}")
    return record


class ResponseStore:
    """Keeps responses for ``ttl_s`` seconds from their start, and from their end."""

    def __init__(self, redis: AsyncRedis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    def with_record(self, submission: Submission, record: StoredResponse) -> Submission:
        """The submission with the record, which is kept if the job is accepted."""
        return replace(
            submission,
            stored_key=names.response_key(record.response_id),
            stored_data=encode_response(record),
            stored_ttl_s=self._ttl_s,
        )

    async def keep(self, record: StoredResponse, answer: bytes) -> None:
        """The response as it ended, whatever becomes of its job's log; not if it is deleted."""
        script = self._redis.register_script(job_scripts.KEEP_ANSWER)
        await script(keys=[names.response_key(record.response_id)], args=[answer, self._ttl_s])

    async def read(self, response_id: str) -> tuple[StoredResponse, bytes | None]:
        """The record, and the answer if one is kept; ``JobNotFoundError`` when there is none."""
        if not _ID.fullmatch(response_id):
            raise no_response(response_id)
        key = names.response_key(response_id)
        return _read(response_id, await self._redis.hmget(key, [_RECORD, _ANSWER]))

    async def delete(self, response_id: str) -> None:
        """Forget the response, and, once its job has ended, what that was asked and has said."""
        keys = [
            names.job_key(response_id),
            names.log_key(response_id),
            names.request_key(response_id),
            names.response_key(response_id),
        ]
        await self._redis.register_script(job_scripts.FORGET)(keys=keys)


def read_stored(redis: SyncRedis, response_id: str) -> tuple[StoredResponse, bytes | None]:
    """As ``ResponseStore.read``, for threads."""
    return _read(response_id, redis.hmget(names.response_key(response_id), [_RECORD, _ANSWER]))


def _read(response_id: str, found: Sequence[bytes | None]) -> tuple[StoredResponse, bytes | None]:
    record, answer = found
    if record is None:
        raise no_response(response_id)
    return decode_response(record), answer


def no_response(response_id: str) -> JobNotFoundError:
    """The error for an id that is unknown, expired, deleted or was never stored."""
    return JobNotFoundError(f"there is no response {response_id[:80]!r}", "response_id")
