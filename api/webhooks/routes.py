"""/v1/webhook_endpoints: where events are sent, as OpenAI's client manages it."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from api.web.errors import Problem, ProblemError
from api.webhooks.addresses import Reach, is_local_name, literal_address, reach_of
from api.webhooks.schema import (
    AttemptAnswer,
    DeletedEndpoint,
    DeliveryAnswer,
    DeliveryList,
    EndpointAnswer,
    EndpointBody,
    EndpointChangeBody,
    EndpointList,
    EndpointWithSecret,
    EventTypeList,
    RotateBody,
    TestBody,
    TestResult,
)
from api.webhooks.transport import UnreachableError, post, target_of
from jobs.contract.errors import InvalidRequestError
from jobs.keys.caller import Caller
from jobs.webhooks.events import EVENT_TYPES, event_body, sample_object_id
from jobs.webhooks.records import Delivery, Endpoint, joined_types
from jobs.webhooks.signing import hint_of, signed_headers
from jobs.webhooks.store import NewEndpoint, WebhookStore

router = APIRouter(prefix="/v1", tags=["webhooks"], responses=ERRORS)
_Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/webhook_endpoints")
async def create_endpoint(body: EndpointBody, services: ServicesDep) -> EndpointWithSecret:
    """Register a URL for events; the answer has the secret, which is not shown again."""
    is_allowed = _check_url(body.url, services.caller)
    wanted = NewEndpoint(body.name, body.url, body.event_types, is_allowed)
    endpoint = await _store(services).create(services.runner.caller_info.id, wanted)
    return _with_secret(endpoint)


@router.get("/webhook_endpoints")
async def list_endpoints(
    services: ServicesDep, after: str | None = None, limit: _Limit = 20
) -> EndpointList:
    """The key's endpoints, newest first."""
    store = _store(services)
    found, has_more = await store.page(services.runner.caller_info.id, after, limit)
    data = [EndpointAnswer(**_shown(endpoint)) for endpoint in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return EndpointList(data=data, first_id=first, last_id=last, has_more=has_more)


@router.get("/webhook_event_types")
async def list_event_types() -> EventTypeList:
    """The types of events that an endpoint may ask for."""
    return EventTypeList(data=list(EVENT_TYPES))


@router.get("/webhook_endpoints/{endpoint_id}")
async def show_endpoint(endpoint_id: str, services: ServicesDep) -> EndpointAnswer:
    """One endpoint."""
    return EndpointAnswer(**_shown(await _found(services, endpoint_id)))


@router.post("/webhook_endpoints/{endpoint_id}")
async def change_endpoint(
    endpoint_id: str, body: EndpointChangeBody, services: ServicesDep
) -> EndpointAnswer:
    """Change what is given. A new URL enables an endpoint that a receiver's 410 has disabled."""
    endpoint = await _found(services, endpoint_id)
    fields: dict[str, object] = {}
    if body.name is not None:
        fields["name"] = body.name
    if body.event_types is not None:
        fields["event_types"] = joined_types(body.event_types)
    status = body.status
    if body.url is not None and body.url != endpoint.url:
        fields |= {"url": body.url, "is_private_allowed": _check_url(body.url, services.caller)}
        status = status or "enabled"
    if status is not None and status != endpoint.status:
        reason = "disabled by request" if status == "disabled" else ""
        fields |= {"status": status, "status_reason": reason}
    return EndpointAnswer(**_shown(await _store(services).change(endpoint, **fields)))


@router.delete("/webhook_endpoints/{endpoint_id}")
async def delete_endpoint(endpoint_id: str, services: ServicesDep) -> DeletedEndpoint:
    """Delete an endpoint with its deliveries, also those that are pending."""
    endpoint = await _found(services, endpoint_id)
    await _store(services).delete(endpoint.caller, endpoint_id)
    return DeletedEndpoint(id=endpoint_id)


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
async def rotate_secret(
    endpoint_id: str, services: ServicesDep, body: RotateBody | None = None
) -> EndpointWithSecret:
    """Replace the secret; for 24 hours both sign, if the old one is to be kept."""
    endpoint = await _found(services, endpoint_id)
    is_kept = bool(body and body.keep_old_secret_active_for_24_hours)
    return _with_secret(await _store(services).rotate(endpoint, is_old_kept=is_kept))


@router.post("/webhook_endpoints/{endpoint_id}/test")
async def test_endpoint(endpoint_id: str, body: TestBody, services: ServicesDep) -> TestResult:
    """Send a sample event now, and wait for the answer. 502 if there is none."""
    store = _store(services)
    endpoint = await _found(services, endpoint_id)
    now = await store.now()
    suffix = secrets.token_hex(12)
    event_id, object_id = f"evt_test_{suffix}", sample_object_id(body.event_type, suffix)
    data = event_body(event_id, body.event_type, int(now), object_id)
    headers = signed_headers(event_id, int(now), data, endpoint.secrets_at(now))
    try:
        answer = await post(
            endpoint.url, headers, data, is_private_allowed=endpoint.is_private_allowed
        )
    except UnreachableError as error:
        raise ProblemError(_unreachable(str(error))) from None
    return TestResult(
        webhook_endpoint_id=endpoint_id, event_type=body.event_type, status_code=answer.status
    )


@router.get("/webhook_endpoints/{endpoint_id}/deliveries")
async def list_deliveries(
    endpoint_id: str, services: ServicesDep, after: str | None = None, limit: _Limit = 20
) -> DeliveryList:
    """What was sent to an endpoint, or is to be sent, newest first."""
    endpoint = await _found(services, endpoint_id)
    found, has_more = await _store(services).deliveries(endpoint, after, limit)
    data = [_delivery(endpoint, delivery) for delivery in found]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return DeliveryList(data=data, first_id=first, last_id=last, has_more=has_more)


@router.post("/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/resend")
async def resend_delivery(
    endpoint_id: str, delivery_id: str, services: ServicesDep
) -> DeliveryAnswer:
    """Send an event again, under the same id."""
    endpoint = await _found(services, endpoint_id)
    if endpoint.status == "disabled":
        raise InvalidRequestError("the webhook endpoint is disabled: enable it first", "status")
    return _delivery(endpoint, await _store(services).resend(endpoint, delivery_id))


def _store(services: Services) -> WebhookStore:
    return WebhookStore(services.redis)


async def _found(services: Services, endpoint_id: str) -> Endpoint:
    caller = services.caller
    return await _store(services).get(caller.id, endpoint_id, is_manager=caller.is_manager)


def _check_url(url: str, caller: Caller) -> bool:
    """Whether the caller may register private addresses; ``InvalidRequestError`` for a wrong URL.

    What a name leads to is checked at each attempt.
    """
    try:
        host = target_of(url).host
    except ValueError as error:
        raise InvalidRequestError(f"url: {error}", "url") from None
    address = literal_address(host)
    reach = Reach.PUBLIC if address is None else reach_of(address)
    if is_local_name(host):
        reach = Reach.PRIVATE
    if reach is Reach.FORBIDDEN:
        raise InvalidRequestError("url: no webhook can be sent to this address", "url")
    if reach is Reach.PRIVATE and not caller.is_manager:
        message = "url: an address of this machine or its network needs the management key"
        raise InvalidRequestError(message, "url")
    return caller.is_manager


def _unreachable(reason: str) -> Problem:
    message = f"the webhook endpoint cannot be reached: {reason}"
    headers = {"x-should-retry": "false"}
    return Problem(502, "upstream_error", "webhook_unreachable", message, "url", headers)


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.endpoint_id,
        "created_at": int(endpoint.created_at),
        "updated_at": int(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.types,
        "signing_secret_hint": hint_of(endpoint.secret),
        "status": endpoint.status,
        "status_reason": endpoint.status_reason or None,
        "dropped_events": endpoint.num_dropped,
    }


def _with_secret(endpoint: Endpoint) -> EndpointWithSecret:
    return EndpointWithSecret.model_validate(
        {**_shown(endpoint), "signing_secret": endpoint.secret}
    )


def _delivery(endpoint: Endpoint, delivery: Delivery) -> DeliveryAnswer:
    attempts = [
        AttemptAnswer(
            at=one.at,
            duration_ms=one.duration_ms,
            status_code=one.status_code,
            error=one.error,
        )
        for one in delivery.attempts_made
    ]
    return DeliveryAnswer(
        id=delivery.event_id,
        webhook_endpoint_id=endpoint.endpoint_id,
        event_type=delivery.type,
        status=delivery.status,
        created_at=int(delivery.created_at),
        next_attempt_at=None if delivery.due_at is None else int(delivery.due_at),
        attempts=attempts,
    )
