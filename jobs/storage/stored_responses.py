"""Stored responses in Redis: a record of the request and, after the end, the answer.

Both are fields of one hash, which expires. Before the end the job's log has the answer.
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
    """The parts of a response that are not in its job's events. ``response_id`` is the job's id.

    ``created_at`` is in epoch seconds. ``echo`` holds the request fields that the response repeats.
    ``items`` is the whole input, including that of the previous responses. ``caller`` is the id of
    whom it belongs to.
    """

    response_id: str
    created_at: int
    model: str
    echo: dict[str, Any]
    items: list[dict[str, Any]]
    is_background: bool = False
    caller: str = ""
    v: int = VERSION


_decoder = msgspec.json.Decoder(StoredResponse)


def encode_response(record: StoredResponse) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_response(data: bytes) -> StoredResponse:
    """Decode a record. Raises ``ContractError`` for anything else, also for another version."""
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(f"the stored response cannot be read: {error}") from error
    if record.v != VERSION:
        raise ContractError(f"response version {record.v} is not {VERSION}")
    return record


class ResponseStore:
    """Keeps responses for ``ttl_s`` seconds after their start, and again after their end."""

    def __init__(self, redis: AsyncRedis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    def with_record(self, submission: Submission, record: StoredResponse) -> Submission:
        """Add the record to a submission. It is stored if the job is accepted."""
        return replace(
            submission,
            stored_key=names.response_key(record.response_id),
            stored_data=encode_response(record),
            stored_ttl_s=self._ttl_s,
        )

    async def keep(self, record: StoredResponse, answer: bytes) -> None:
        """Store the answer, independent of the job's log, unless the response was deleted."""
        script = self._redis.register_script(job_scripts.KEEP_ANSWER)
        response_id = record.response_id
        await script(
            keys=[names.response_key(response_id), names.RESPONSE_EXPIRY],
            args=[answer, self._ttl_s, response_id],
        )

    async def read(self, response_id: str) -> tuple[StoredResponse, bytes | None]:
        """The record, and the answer if there is one. Raises ``JobNotFoundError``."""
        if not _ID.fullmatch(response_id):
            raise no_response(response_id)
        key = names.response_key(response_id)
        return _read(response_id, await self._redis.hmget(key, [_RECORD, _ANSWER]))

    async def delete(self, response_id: str) -> None:
        """Delete the response and its job's request and log, those once the job has ended."""
        keys = [
            names.job_key(response_id),
            names.log_key(response_id),
            names.request_key(response_id),
            names.response_key(response_id),
        ]
        await self._redis.register_script(job_scripts.FORGET)(keys=keys)


def read_stored(redis: SyncRedis, response_id: str) -> tuple[StoredResponse, bytes | None]:
    """``ResponseStore.read`` for threads."""
    return _read(response_id, redis.hmget(names.response_key(response_id), [_RECORD, _ANSWER]))


def _read(response_id: str, found: Sequence[bytes | None]) -> tuple[StoredResponse, bytes | None]:
    record, answer = found
    if record is None:
        raise no_response(response_id)
    return decode_response(record), answer


def no_response(response_id: str) -> JobNotFoundError:
    """The error for an id that is unknown, expired, deleted or not stored."""
    return JobNotFoundError(f"there is no response {response_id[:80]!r}", "response_id")
