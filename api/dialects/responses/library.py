"""Stored responses, put together from their records and from what their jobs have said."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import msgspec
from redis.exceptions import RedisError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.dialects.responses.answer import Answer, ResponseEncoder
from api.dialects.responses.items import REFERENCE, Item
from api.execution.services import Services
from api.web.errors import problem_of
from jobs.contract.errors import InvalidRequestError, JobError, JobNotFoundError
from jobs.contract.events import Event
from jobs.contract.records import JobRecord, JobStatus
from jobs.storage.event_log import read_log_async
from jobs.storage.stored_responses import ResponseStore, StoredResponse, no_response

_CANCEL_WAIT_S = 2.0
_PLACE_CHARS = 4  # of an item among others, in its id

log = logging.getLogger(__name__)


class Library:
    """The stored responses of one server, in the name of one caller."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._runner = services.runner
        self.shelf = ResponseStore(services.redis, services.settings.response_ttl_s)

    async def read(self, response_id: str) -> tuple[StoredResponse, bytes | None]:
        """The record, and the answer if it has ended; ``JobNotFoundError`` for another's, too."""
        record, kept = await self.shelf.read(response_id)
        if not self._services.caller.may_see(record.caller):
            raise no_response(response_id)
        return record, kept

    async def show(self, response_id: str) -> bytes:
        """The response object as JSON; ``JobNotFoundError`` when there is none.

        What has ended is kept from then on, also when its job's log expires.
        """
        record, kept = await self.read(response_id)
        if kept is not None:
            return kept
        job = await self._job(response_id)
        answer = Answer(record)
        for event in await read_log_async(self._services.redis, response_id):
            answer.feed(event)
        if job.status is JobStatus.RUNNING and answer.status == "queued":
            answer.status = "in_progress"
        shown = msgspec.json.encode(answer.shown())
        if answer.is_ended:
            await self.shelf.keep(record, shown)
        return shown

    async def context(self, previous_id: str) -> list[Item]:
        """The items that a response leaves behind for the one that follows: all in, then out."""
        field = "previous_response_id"
        try:
            record, _ = await self.read(previous_id)
            previous: dict[str, Any] = msgspec.json.decode(await self.show(previous_id))
        except JobNotFoundError as error:
            raise InvalidRequestError(f"{field}: {error.message}", field) from None
        if previous["status"] in ("queued", "in_progress"):
            raise InvalidRequestError(f"{field}: that response has not ended yet", field)
        output: list[Item] = previous["output"]
        return record.items + output

    async def resolved(self, items: Sequence[Item]) -> list[Item]:
        """The items, with the stored ones in the place of references to them."""
        return [
            await self._stored(item["id"], f"input[{index}].id")
            if item["type"] == REFERENCE
            else item
            for index, item in enumerate(items)
        ]

    async def _stored(self, item_id: str, place: str) -> Item:
        """The ids of items have that of their response in them: an input's behind its place, an
        output's before it."""
        rest = item_id.partition("_")[2]
        for suffix in {rest[_PLACE_CHARS:], rest[:-_PLACE_CHARS]}:
            with contextlib.suppress(JobNotFoundError):
                record, _ = await self.read(f"resp_{suffix}")
                shown = msgspec.json.decode(await self.show(record.response_id))
                for item in (*record.items, *shown["output"]):
                    if item["id"] == item_id:
                        return cast("Item", item)
        message = f"{place}: no stored response has the item {item_id[:80]!r}"
        raise InvalidRequestError(message, place)

    async def cancel(self, response_id: str) -> bytes:
        """End the response's job; one that has ended stays as it is. The response object."""
        _, kept = await self.read(response_id)
        if kept is not None:
            return kept
        await self._job(response_id)
        store = self._services.store
        await self._runner.in_thread(store.cancel, response_id, "cancelled by request")
        # A worker that is busy answers later; till then the response is shown as it runs.
        with contextlib.suppress(JobError):
            await self._runner.wait_existing(response_id, _CANCEL_WAIT_S)
        return await self.show(response_id)

    async def delete(self, response_id: str) -> None:
        """Forget the response; one that still runs is cancelled."""
        await self.read(response_id)
        await self.shelf.delete(response_id)
        reason = "the response was deleted"
        try:
            await self._runner.in_thread(self._services.store.cancel, response_id, reason)
        except JobNotFoundError:
            return
        except RedisError:
            self._runner.cancel_soon(response_id, reason)

    async def follow(self, record: StoredResponse, after: int) -> AsyncIterator[bytes]:
        """The frames numbered above ``after``: of what has happened, then of what happens."""
        encoder = ResponseEncoder(record, after)
        if record.is_background:
            yield encoder.queue()
        events = self._runner.hub.replay(record.response_id)
        async with contextlib.aclosing(events):
            try:
                async for event in events:
                    if frames := encoder.feed(event):
                        yield frames
            except JobError as error:
                yield encoder.failed(problem_of(error))

    async def begin_to_follow(self, response_id: str) -> StoredResponse:
        """The record of a response whose stream can be told; ``JobNotFoundError`` if none can."""
        record, _ = await self.read(response_id)
        await self._job(response_id)
        await self._runner.in_thread(self._services.store.adopt, response_id, self._runner.name)
        return record

    async def _job(self, response_id: str) -> JobRecord:
        try:
            found: JobRecord = await self._runner.in_thread(
                self._services.store.record, response_id
            )
        except JobNotFoundError:
            raise no_response(response_id) from None
        return found


class ResponseAnswer(Response):
    """An answer to POST; what is stored is kept as it ended."""

    def __init__(self, inner: Response, library: Library, record: StoredResponse) -> None:
        super().__init__()
        self._inner = inner
        self._library = library
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)
        if self._record.echo["store"]:
            await self._keep()

    async def _keep(self) -> None:
        try:
            await self._library.show(self._record.response_id)
        except (RedisError, JobNotFoundError) as error:
            facts = {"job": self._record.response_id, "error": str(error)}
            log.warning("response not kept beyond its log", extra=facts)


def whole_body(record: StoredResponse, events: list[Event]) -> bytes:
    """The response object of a job that has finished."""
    answer = Answer(record)
    for event in events:
        answer.feed(event)
    return msgspec.json.encode(answer.shown())
