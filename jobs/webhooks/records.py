"""Webhook endpoints and deliveries as they lie in Redis: hashes, readable in redis-cli."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from jobs.contract.errors import ContractError

EndpointStatus = Literal["enabled", "disabled"]
DeliveryStatus = Literal["pending", "delivered", "failed"]


class Endpoint(msgspec.Struct, frozen=True):
    """A receiver of events. Times are epoch seconds of Redis' clock.

    ``event_types`` are separated, begun and ended by spaces, so that a script finds one.
    ``is_private_allowed``: a manager registered the URL, so it may lead to a private address.
    ``old_secret`` signs too until ``old_secret_until``. ``num_dropped`` counts events that were
    given up because too many were pending.
    """

    endpoint_id: str
    caller: str
    name: str
    url: str
    event_types: str
    secret: str
    created_at: float
    updated_at: float
    is_private_allowed: bool = False
    old_secret: str = ""
    old_secret_until: float = 0.0
    status: EndpointStatus = "enabled"
    status_reason: str = ""
    num_dropped: int = 0

    @property
    def types(self) -> list[str]:
        """The event types one by one."""
        return self.event_types.split()

    def secrets_at(self, now: float) -> list[str]:
        """The secrets that sign at that time, the newest first."""
        is_kept = bool(self.old_secret) and now < self.old_secret_until
        return [self.secret, self.old_secret] if is_kept else [self.secret]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try to deliver: its answer's status, or why there was none."""

    at: int
    duration_ms: int
    status_code: int | None = None
    error: str | None = None


class Delivery(msgspec.Struct, frozen=True):
    """The delivery of one event. ``tries`` has its attempts as JSON objects, comma separated."""

    event_id: str
    type: str
    body: str
    status: DeliveryStatus
    created_at: float
    first_at: float
    attempts: int = 0
    tries: str = ""
    due_at: float | None = None

    @property
    def attempts_made(self) -> list[Attempt]:
        """The attempts in order. Raises ``ContractError`` when they cannot be read."""
        try:
            return msgspec.json.decode(f"[{self.tries}]", type=list[Attempt])
        except msgspec.DecodeError as error:
            raise ContractError(f"the attempts of {self.event_id} cannot be read") from error


_T = TypeVar("_T", Endpoint, Delivery)


def joined_types(types: list[str]) -> str:
    """Event types as ``Endpoint`` holds them, each once."""
    return f" {' '.join(dict.fromkeys(types))} "


def endpoint_of(endpoint_id: str, fields: Mapping[bytes, bytes]) -> Endpoint:
    """Read the hash. Raises ``ContractError`` when it is not an endpoint."""
    return _read(Endpoint, fields, endpoint_id=endpoint_id)


def delivery_of(
    event_id: str, fields: Mapping[bytes, bytes], due_at: float | None = None
) -> Delivery:
    """Read the hash. Raises ``ContractError`` when it is not a delivery."""
    return _read(Delivery, fields, event_id=event_id, due_at=due_at)


def fields_of(endpoint: Endpoint) -> list[str | float | int]:
    """Names and values for the hash, flat."""
    values: dict[str, Any] = msgspec.to_builtins(endpoint)
    del values["endpoint_id"]
    return [part for name, value in values.items() for part in (name, _plain(value))]


def _plain(value: Any) -> str | float | int:
    return int(value) if isinstance(value, bool) else value


def _read(kind: type[_T], fields: Mapping[bytes, bytes], **more: Any) -> _T:
    text = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in fields.items()}
    try:
        return msgspec.convert({**text, **more}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ContractError(f"a {kind.__name__} cannot be read: {error}") from error
