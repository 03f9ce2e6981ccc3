"""Webhook endpoints and their deliveries in Redis. Calls may be repeated after a lost reply."""

from __future__ import annotations

import re
import secrets
from typing import Any, Literal, NamedTuple

import msgspec

from jobs.contract.errors import ContractError, InvalidRequestError, JobNotFoundError
from jobs.storage import object_names
from jobs.storage.connection import AsyncRedis
from jobs.storage.lua import webhook_scripts
from jobs.webhooks.records import (
    Attempt,
    Delivery,
    Endpoint,
    delivery_of,
    endpoint_of,
    fields_of,
    joined_types,
)
from jobs.webhooks.signing import new_secret

_OLD_SECRET_S = 24 * 3600
_ENDPOINT_ID = re.compile(r"we_[0-9a-f]{24}")
_EVENT_ID = re.compile(r"evt_[A-Za-z0-9_-]{1,200}")


class NewEndpoint(NamedTuple):
    """What a client says of an endpoint."""

    name: str
    url: str
    event_types: list[str]
    is_private_allowed: bool


class DueDelivery(NamedTuple):
    """A delivery that is due. ``elapsed_s`` is the time since its first attempt."""

    event_id: str
    body: bytes
    attempts: int
    elapsed_s: float


class DueBatch(NamedTuple):
    """Due deliveries of one endpoint, leased by this sender. ``now``: Redis' time."""

    endpoint_id: str
    url: str
    is_private_allowed: bool
    secrets: list[str]
    now: float
    lease: str
    deliveries: list[DueDelivery]


class WebhookStore:
    """The endpoints of all callers. A foreign one does not exist for a caller."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        return await self._redis.register_script(script)(keys=keys, args=args)

    async def now(self) -> float:
        """Redis' clock in epoch seconds."""
        seconds, microseconds = await self._redis.time()
        return float(seconds + microseconds / 1e6)

    async def create(self, caller: str, wanted: NewEndpoint) -> Endpoint:
        """A new endpoint with a new secret. ``InvalidRequestError`` when there are too many."""
        now = await self.now()
        endpoint = Endpoint(
            endpoint_id=f"we_{secrets.token_hex(12)}",
            caller=caller,
            name=wanted.name,
            url=wanted.url,
            event_types=joined_types(wanted.event_types),
            secret=new_secret(),
            created_at=now,
            updated_at=now,
            is_private_allowed=wanted.is_private_allowed,
        )
        made_id = endpoint.endpoint_id
        keys = [object_names.hooks_key(caller), object_names.hook_key(made_id)]
        args = [made_id, repr(now), *fields_of(endpoint)]
        if not await self._run(webhook_scripts.CREATE, keys, args):
            limit = webhook_scripts.MAX_ENDPOINTS
            raise InvalidRequestError(f"there are {limit} webhook endpoints already: delete one")
        return endpoint

    async def get(self, caller: str, endpoint_id: str, *, is_manager: bool = False) -> Endpoint:
        """The caller's endpoint, for a manager anybody's. Raises ``JobNotFoundError``."""
        if not _ENDPOINT_ID.fullmatch(endpoint_id):
            raise no_endpoint(endpoint_id)
        fields = await self._redis.hgetall(object_names.hook_key(endpoint_id))
        endpoint = endpoint_of(endpoint_id, fields) if fields else None
        if endpoint is None or not (is_manager or endpoint.caller == caller):
            raise no_endpoint(endpoint_id)
        return endpoint

    async def page(self, caller: str, after: str | None, limit: int) -> tuple[list[Endpoint], bool]:
        """The caller's endpoints behind ``after``, newest first, and whether there are more."""
        key = object_names.hooks_key(caller)
        rank = -1
        if after is not None:
            found = await self._redis.zrevrank(key, after)
            if found is None:
                raise InvalidRequestError("after: there is no such webhook endpoint", "after")
            rank = int(found)
        ids = [one.decode() for one in await self._redis.zrevrange(key, rank + 1, rank + 1 + limit)]
        shown: list[Endpoint] = []
        for endpoint_id in ids[:limit]:
            try:
                shown.append(await self.get(caller, endpoint_id))
            except (ContractError, JobNotFoundError):
                continue  # one that cannot be read hides no other
        return shown, len(ids) > limit

    async def change(self, endpoint: Endpoint, **fields: Any) -> Endpoint:
        """Set fields of an endpoint; ``updated_at`` moves if one differs."""
        changed = msgspec.structs.replace(endpoint, **fields)
        if changed == endpoint:
            return endpoint
        changed = msgspec.structs.replace(changed, updated_at=await self.now())
        names_of = {*fields, "updated_at"}
        every = fields_of(changed)
        pairs = zip(every[::2], every[1::2], strict=True)
        args = [part for name, value in pairs if name in names_of for part in (name, value)]
        key = object_names.hook_key(endpoint.endpoint_id)
        if not await self._run(webhook_scripts.CHANGE, [key], [endpoint.endpoint_id, *args]):
            raise no_endpoint(endpoint.endpoint_id)
        return changed

    async def rotate(self, endpoint: Endpoint, *, is_old_kept: bool) -> Endpoint:
        """A new secret; the one of before signs for 24 hours too, if ``is_old_kept``."""
        until = await self.now() + _OLD_SECRET_S if is_old_kept else 0.0
        old = endpoint.secret if is_old_kept else ""
        return await self.change(
            endpoint, secret=new_secret(), old_secret=old, old_secret_until=until
        )

    async def disable(self, endpoint_id: str, reason: str) -> None:
        """Send an endpoint nothing more until its owner enables it."""
        args = [endpoint_id, "status", "disabled", "status_reason", reason]
        await self._run(webhook_scripts.CHANGE, [object_names.hook_key(endpoint_id)], args)

    async def delete(self, caller: str, endpoint_id: str) -> None:
        """Delete an endpoint with its deliveries. Raises ``JobNotFoundError``."""
        keys = [object_names.hooks_key(caller), object_names.hook_key(endpoint_id)]
        if not await self._run(webhook_scripts.DELETE, keys, [endpoint_id]):
            raise no_endpoint(endpoint_id)

    async def queue(self, caller: str, kind: str, object_id: str) -> None:
        """Queue an event by itself; usually the script of the change does it."""
        await self._run(webhook_scripts.QUEUE, [], [caller, kind, object_id])

    async def deliveries(
        self, endpoint: Endpoint, after: str | None, limit: int
    ) -> tuple[list[Delivery], bool]:
        """The endpoint's deliveries behind ``after``, newest first, and whether there are more."""
        key = object_names.hook_log_key(endpoint.endpoint_id)
        rank = -1
        if after is not None:
            found = await self._redis.zrevrank(key, after)
            if found is None:
                raise InvalidRequestError("after: there is no such delivery", "after")
            rank = int(found)
        ids = [one.decode() for one in await self._redis.zrevrange(key, rank + 1, rank + 1 + limit)]
        shown = []
        for event_id in ids[:limit]:
            delivery = await self._delivery(endpoint, event_id)
            if delivery is not None:
                shown.append(delivery)
        return shown, len(ids) > limit

    async def _delivery(self, endpoint: Endpoint, event_id: str) -> Delivery | None:
        fields = await self._redis.hgetall(
            object_names.hook_event_key(endpoint.endpoint_id, event_id)
        )
        due_at = await self._redis.zscore(object_names.hook_due_key(endpoint.endpoint_id), event_id)
        try:
            return delivery_of(event_id, fields, due_at) if fields else None
        except ContractError:
            return None

    async def resend(self, endpoint: Endpoint, event_id: str) -> Delivery:
        """Make a delivery due now. Raises ``JobNotFoundError``."""
        delivery = None
        if _EVENT_ID.fullmatch(event_id):
            key = object_names.hook_event_key(endpoint.endpoint_id, event_id)
            args = [endpoint.endpoint_id, event_id]
            if await self._run(webhook_scripts.RESEND, [key], args):
                delivery = await self._delivery(endpoint, event_id)
        if delivery is None:
            raise JobNotFoundError(f"there is no delivery {event_id[:80]!r}", "delivery_id")
        return delivery

    # For senders.

    async def take(self, lease_s: float, at_most: int, busy: list[str]) -> DueBatch | float | None:
        """Due deliveries of an endpoint that is not ``busy``, or when the next is due.

        Seconds, or ``None`` while none waits.
        """
        lease = secrets.token_hex(8)
        found = await self._run(webhook_scripts.TAKE, [], [lease, lease_s, at_most, *busy])
        if not found[0]:
            left_s = float(found[1])
            return None if left_s < 0 else left_s
        at, hook, url, is_private, *both = (_text(one) for one in found[1:7])
        now, rest = float(at), found[7:]
        parts = zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True)
        deliveries = [
            DueDelivery(_text(event), body, int(attempts), now - float(first_at))
            for event, body, attempts, first_at in parts
        ]
        keys = [secret for secret in both if secret]
        return DueBatch(hook, url, is_private == "1", keys, now, lease, deliveries)

    async def settle(
        self,
        batch: DueBatch,
        event_id: str,
        outcome: Literal["delivered", "failed"] | float,
        attempt: Attempt,
    ) -> bool:
        """Write how an attempt ended; a number: seconds until the next. False if it was late."""
        args = [batch.endpoint_id, event_id, batch.lease, outcome, msgspec.json.encode(attempt)]
        key = object_names.hook_event_key(batch.endpoint_id, event_id)
        return bool(await self._run(webhook_scripts.SETTLE, [key], args))

    async def wait_for_event(self, timeout_s: float) -> None:
        """Return when a delivery was queued, after ``timeout_s`` at the latest."""
        await self._redis.blpop(object_names.HOOKS_WAKE, timeout_s)


def no_endpoint(endpoint_id: str) -> JobNotFoundError:
    """The error for an id that is unknown, deleted, or another caller's."""
    return JobNotFoundError(
        f"there is no webhook endpoint {endpoint_id[:80]!r}", "webhook_endpoint_id"
    )


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
