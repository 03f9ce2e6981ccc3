"""Bodies and answers of the webhook routes, as OpenAI's client sends and reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from api.web.base_schema import Body, Flag, Text
from jobs.webhooks.events import EVENT_TYPES

Name = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
Url = Annotated[str, Field(strict=True, min_length=1, max_length=2048)]


def _checked_type(value: str) -> str:
    if value not in EVENT_TYPES:
        raise ValueError(f"{value[:80]!r} is none of {', '.join(EVENT_TYPES)}")
    return value


def _checked_types(values: list[str]) -> list[str]:
    if not 1 <= len(values) <= 4 * len(EVENT_TYPES):
        raise ValueError("must name at least one event type, each once")
    return [_checked_type(value) for value in values]


class EndpointBody(Body):
    """A new endpoint."""

    name: Name
    url: Url
    event_types: list[Text]

    _check_types = field_validator("event_types")(_checked_types)


class EndpointChangeBody(Body):
    """What is to change of an endpoint. ``status`` is ours: ``enabled`` or ``disabled``."""

    name: Name | None = None
    url: Url | None = None
    event_types: list[Text] | None = None
    status: Literal["enabled", "disabled"] | None = None

    @field_validator("event_types")
    @classmethod
    def _check_types(cls, values: list[str] | None) -> list[str] | None:
        return None if values is None else _checked_types(values)


class RotateBody(Body):
    """How a secret is replaced."""

    keep_old_secret_active_for_24_hours: Flag | None = None


class TestBody(Body):
    """The type of the event that is sent as a test."""

    event_type: Text

    _check_type = field_validator("event_type")(_checked_type)


class EndpointAnswer(BaseModel):
    """An endpoint. ``status`` and what follows it are ours."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    status: Literal["enabled", "disabled"]
    status_reason: str | None = None
    dropped_events: int = 0


class EndpointWithSecret(EndpointAnswer):
    """The same with its secret, which is shown at creation and rotation only."""

    signing_secret: str


class EndpointList(BaseModel):
    """A page of endpoints, newest first."""

    object: Literal["list"] = "list"
    data: list[EndpointAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


class EventTypeList(BaseModel):
    """The types of events that exist here."""

    object: Literal["list"] = "list"
    data: list[str]


class DeletedEndpoint(BaseModel):
    """An endpoint was deleted."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class TestResult(BaseModel):
    """The receiver answered a test; ``status_code`` says how."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class AttemptAnswer(BaseModel):
    """One try to deliver: the receiver's status, or why there was no answer."""

    at: int
    duration_ms: int
    status_code: int | None
    error: str | None


class DeliveryAnswer(BaseModel):
    """The delivery of one event; its id is the event's, which all attempts send."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    webhook_endpoint_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    created_at: int
    next_attempt_at: int | None
    attempts: list[AttemptAnswer]


class DeliveryList(BaseModel):
    """A page of deliveries, newest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool
