"""Webhooks through the API with OpenAI's client, a real Redis, sender and receiver."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError, OpenAI

from jobs.storage import names, object_names
from jobs.storage.lua.webhook_scripts import MAX_ENDPOINTS, MAX_LOG, QUEUE, SETTLE, TAKE
from jobs.storage.store import JobStore
from jobs.webhooks.events import EVENT_TYPES
from tests.helpers.receiver import Received, Receiver, receiving
from tests.helpers.sdk import openai_client
from tests.helpers.sending import sending
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

BATCHES = ["batch.completed", "batch.failed"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def sender(rig: Rig) -> Iterator[None]:
    with sending(rig.settings.effective_redis_url):
        yield


def create(rig: Rig, url: str, types: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"name": "mine", "url": url, "event_types": types or BATCHES, **fields}
    answer = rig.post("/v1/webhook_endpoints", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def queue(rig: Rig, object_id: str, kind: str = "batch.completed", caller: str = "") -> None:
    rig.redis.register_script(QUEUE)(args=[caller, kind, object_id])


def deliveries(rig: Rig, endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    answer = rig.http.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries?limit=100")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def settled(rig: Rig, endpoint: dict[str, Any], num_attempts: int = 1) -> dict[str, Any]:
    """The newest delivery, once it has had so many attempts."""

    def look() -> dict[str, Any] | None:
        found = deliveries(rig, endpoint)
        return found[0] if found and len(found[0]["attempts"]) >= num_attempts else None

    found = wait_until(look, f"{num_attempts} attempts")
    assert found is not None
    return found


def make_due(rig: Rig, endpoint: dict[str, Any]) -> None:
    """Every pending delivery of the endpoint is due now."""
    key = object_names.hook_due_key(endpoint["id"])
    for event in rig.redis.zrange(key, 0, -1):
        rig.redis.zadd(key, {event: 1})
    rig.redis.zadd(object_names.HOOKS_DUE, {endpoint["id"]: 1})
    rig.redis.lpush(object_names.HOOKS_WAKE, "1")


def unwrapped(client: OpenAI, received: Received, secret: str) -> Any:
    return client.webhooks.unwrap(received.body, received.headers, secret=secret)


# The endpoints, as OpenAI's client manages them.


def test_openai_python_manages_endpoints(rig: Rig, client: OpenAI) -> None:
    made = client.webhooks.create(
        event_types=["batch.completed"], name="first", url="https://example.com/a"
    )
    assert made.signing_secret.startswith("whsec_")
    assert len(made.signing_secret) == len("whsec_") + 32
    second = client.webhooks.create(
        event_types=["response.failed"], name="second", url="https://example.com/b"
    )
    listed = client.webhooks.list()
    assert [endpoint.id for endpoint in listed.data] == [second.id, made.id]
    assert [endpoint.id for endpoint in client.webhooks.list(limit=1)] == [second.id, made.id]
    changed = client.webhooks.update(made.id, name="renamed", event_types=["batch.failed"])
    assert (changed.name, changed.event_types) == ("renamed", ["batch.failed"])
    shown = client.webhooks.retrieve(made.id)
    assert shown == changed
    assert made.signing_secret[-4:] in (shown.signing_secret_hint or "")
    assert "signing_secret" not in rig.http.get(f"/v1/webhook_endpoints/{made.id}").json()
    assert client.webhooks.event_types.list().data == list(EVENT_TYPES)
    deleted = client.webhooks.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(NotFoundError):
        client.webhooks.retrieve(made.id)
    assert [endpoint.id for endpoint in client.webhooks.list()] == [second.id]


def test_a_test_sends_a_signed_sample(client: OpenAI, receiver: Receiver) -> None:
    made = client.webhooks.create(event_types=["batch.completed"], name="a", url=receiver.url)
    result = client.webhooks.test(made.id, event_type="response.completed")
    assert (result.status_code, result.success) == (204, True)
    event = unwrapped(client, receiver.requests[0], made.signing_secret)
    assert event.type == "response.completed"
    assert event.data.id.startswith("resp_")


def test_a_test_of_an_endpoint_that_nobody_serves_says_why(rig: Rig) -> None:
    made = create(rig, "http://127.0.0.1:1/")
    path = f"/v1/webhook_endpoints/{made['id']}/test"
    answer = rig.post(path, {"event_type": "batch.failed"})
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "webhook_unreachable"


def test_a_redirect_is_an_answer_and_is_not_followed(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda received: (307, {"Location": "/elsewhere"})
    made = create(rig, receiver.url)
    path = f"/v1/webhook_endpoints/{made['id']}/test"
    assert rig.post(path, {"event_type": "batch.failed"}).json()["status_code"] == 307
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://me:secret@example.com/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://example.com/\r\nX: y"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "http://0.0.0.0/"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["batch.finished"]}, "event_types"),
        ({"event_types": "batch.completed"}, "event_types"),
    ],
)
def test_a_wrong_endpoint_is_refused_by_its_field(
    rig: Rig, change: dict[str, Any], param: str
) -> None:
    body = {"name": "a", "url": "https://example.com/", "event_types": BATCHES, **change}
    answer = rig.post("/v1/webhook_endpoints", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_caller_has_a_bounded_number_of_endpoints(rig: Rig) -> None:
    for _ in range(MAX_ENDPOINTS):
        create(rig, "https://example.com/")
    body = {"name": "a", "url": "https://example.com/", "event_types": BATCHES}
    assert rig.post("/v1/webhook_endpoints", body).status_code == 400


def test_ids_that_are_none_are_not_found(rig: Rig) -> None:
    made = create(rig, "https://example.com/")
    for endpoint_id in ("we_0", f"we_{'0' * 24}", f"{made['id']}:log", "x" * 500):
        assert rig.http.get(f"/v1/webhook_endpoints/{endpoint_id}").status_code == 404
    path = f"/v1/webhook_endpoints/{made['id']}/deliveries"
    for event_id in ("evt_none", "evt_a:b", "no"):
        assert rig.post(f"{path}/{event_id}/resend", None).status_code == 404
    assert rig.http.get(f"{path}?after=evt_none").status_code == 400


# Deliveries.


@pytest.mark.usefixtures("sender")
def test_a_delivery_has_what_openai_python_unwraps(
    rig: Rig, client: OpenAI, receiver: Receiver
) -> None:
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    queue(rig, "batch_1")  # repeated after a lost reply
    queue(rig, "batch_2", "batch.expired")  # not asked for
    queue(rig, "batch_3", "batch.completed", caller="somebody else")
    (received,) = receiver.wait_for()
    event = unwrapped(client, received, made["signing_secret"])
    assert (event.type, event.data.id) == ("batch.completed", "batch_1")
    assert event.id == received.headers["webhook-id"]
    delivery = settled(rig, made)
    assert (delivery["status"], delivery["attempts"][0]["status_code"]) == ("delivered", 204)
    assert len(deliveries(rig, made)) == 1
    assert len(receiver.requests) == 1


@pytest.mark.usefixtures("sender")
def test_both_secrets_sign_while_the_old_one_is_kept(
    rig: Rig, client: OpenAI, receiver: Receiver
) -> None:
    made = create(rig, receiver.url)
    rotated = client.webhooks.rotate_secret(made["id"], keep_old_secret_active_for_24_hours=True)
    queue(rig, "batch_1")
    (received,) = receiver.wait_for()
    assert len(received.headers["webhook-signature"].split()) == 2
    for secret in (made["signing_secret"], rotated.signing_secret):
        assert unwrapped(client, received, secret).data.id == "batch_1"
    newest = client.webhooks.rotate_secret(made["id"])
    queue(rig, "batch_2")
    received = receiver.wait_for(2)[1]
    assert unwrapped(client, received, newest.signing_secret).data.id == "batch_2"
    with pytest.raises(ValueError, match="match"):
        unwrapped(client, received, rotated.signing_secret)


@pytest.mark.usefixtures("sender")
def test_a_failed_delivery_is_tried_again_under_its_id(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda received: (500, {})
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    delivery = settled(rig, made)
    assert delivery["status"] == "pending"
    assert delivery["next_attempt_at"] - delivery["attempts"][0]["at"] in (5, 6)
    receiver.answer = lambda received: (200, {})
    make_due(rig, made)
    delivery = settled(rig, made, 2)
    assert [one["status_code"] for one in delivery["attempts"]] == [500, 200]
    assert (delivery["status"], delivery["next_attempt_at"]) == ("delivered", None)
    assert len(set(receiver.ids())) == 1


@pytest.mark.usefixtures("sender")
def test_a_receiver_may_ask_for_a_later_attempt(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda received: (429, {"Retry-After": "900"})
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    delivery = settled(rig, made)
    assert delivery["next_attempt_at"] - delivery["attempts"][0]["at"] in (900, 901)


@pytest.mark.usefixtures("sender")
def test_a_delivery_is_given_up_after_three_days(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda received: (500, {})
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    event_id = settled(rig, made)["id"]
    rig.redis.hset(object_names.hook_event_key(made["id"], event_id), "first_at", 1)
    make_due(rig, made)
    assert settled(rig, made, 2)["status"] == "failed"
    assert rig.redis.zcard(object_names.HOOKS_DUE) == 0


@pytest.mark.usefixtures("sender")
def test_gone_disables_an_endpoint_until_its_owner_enables_it(rig: Rig, receiver: Receiver) -> None:
    receiver.answer = lambda received: (410, {})
    made = create(rig, receiver.url)
    path = f"/v1/webhook_endpoints/{made['id']}"
    queue(rig, "batch_1")
    wait_until(lambda: rig.http.get(path).json()["status"] == "disabled", "a disabled endpoint")
    assert deliveries(rig, made)[0]["status"] == "failed"
    queue(rig, "batch_2")
    assert len(deliveries(rig, made)) == 1
    event_id = deliveries(rig, made)[0]["id"]
    assert rig.post(f"{path}/deliveries/{event_id}/resend", None).status_code == 400
    receiver.answer = lambda received: (204, {})
    assert rig.post(path, {"status": "enabled"}).json()["status"] == "enabled"
    answer = rig.post(f"{path}/deliveries/{event_id}/resend", None)
    assert answer.json()["status"] == "pending"
    receiver.wait_for(2)
    assert receiver.ids() == [event_id] * 2


def test_a_disabled_endpoint_gives_its_pending_deliveries_up(rig: Rig) -> None:
    made = create(rig, "https://example.com/")
    queue(rig, "batch_1")
    assert rig.redis.zcard(object_names.HOOKS_DUE) == 1
    rig.post(f"/v1/webhook_endpoints/{made['id']}", {"status": "disabled"})
    assert deliveries(rig, made)[0]["status"] == "failed"
    assert rig.redis.zcard(object_names.HOOKS_DUE) == 0


@pytest.mark.usefixtures("sender")
def test_a_slow_receiver_does_not_delay_others(rig: Rig, receiver: Receiver) -> None:
    gate = threading.Event()
    with receiving() as slow:
        slow.answer = lambda received: (204, {}) if gate.wait(20) else (500, {})
        made = create(rig, slow.url)
        for number in range(60):
            queue(rig, f"batch_{number}")
        slow.wait_for(4)
        create(rig, receiver.url, ["batch.failed"])
        queue(rig, "batch_x", "batch.failed")
        receiver.wait_for()
        assert len(slow.requests) == 4
        gate.set()
        wait_until(lambda: len(set(slow.ids())) == 61, "all deliveries of the slow one")
        wait_until(
            lambda: not rig.redis.zcard(object_names.hook_due_key(made["id"])), "no pending one"
        )


def test_two_senders_send_each_event_once(rig: Rig, receiver: Receiver) -> None:
    create(rig, receiver.url)
    url = rig.settings.effective_redis_url
    with sending(url), sending(url):
        for number in range(200):
            queue(rig, f"batch_{number}")
        receiver.wait_for(200)
    assert len(receiver.requests) == 200
    assert len(set(receiver.ids())) == 200


def test_the_lease_of_a_dead_sender_runs_out(rig: Rig, receiver: Receiver) -> None:
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    taken = rig.redis.register_script(TAKE)(args=["dead", 3600, 4])
    assert taken[0] == 1
    with sending(rig.settings.effective_redis_url):
        make_due(rig, made)  # an hour later
        receiver.wait_for()
        assert settled(rig, made)["status"] == "delivered"


def test_what_is_kept_of_an_endpoint_is_bounded(rig: Rig) -> None:
    made = create(rig, "https://example.com/")
    queue_script = rig.redis.register_script(QUEUE)
    for number in range(MAX_LOG + 20):
        queue_script(args=["", "batch.completed", f"batch_{number}"])
    key = object_names.hook_log_key(made["id"])
    assert rig.redis.zcard(key) == MAX_LOG + 20  # all are pending
    rig.post(f"/v1/webhook_endpoints/{made['id']}", {"status": "disabled"})
    rig.post(f"/v1/webhook_endpoints/{made['id']}", {"status": "enabled"})
    for number in range(2):
        queue_script(args=["", "batch.failed", f"batch_{number}"])
    assert rig.redis.zcard(key) <= MAX_LOG + 1
    rig.http.delete(f"/v1/webhook_endpoints/{made['id']}")
    assert list(rig.redis.scan_iter(object_names.hook_key("*"))) == []
    assert rig.redis.zcard(object_names.HOOKS_DUE) == 0


# What /metrics tells.


def delivery_numbers(rig: Rig) -> dict[str, float]:
    """The metrics of deliveries, by their label or the end of their name."""
    found: dict[str, float] = {}
    for line in rig.http.get("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("mgs_webhook_"):
            label = re.search(r'status="(\w+)"', name)
            found[label[1] if label else name.removeprefix("mgs_webhook_")] = float(value)
    return found


def told(**numbers: float) -> dict[str, float]:
    return {"delivered": 0, "failed": 0, "dropped": 0, "retries_total": 0, "pending": 0, **numbers}


@pytest.mark.usefixtures("sender")
def test_metrics_count_what_was_delivered_failed_and_tried_again(
    rig: Rig, receiver: Receiver
) -> None:
    assert delivery_numbers(rig) == told()
    receiver.answer = lambda received: (500, {})
    made = create(rig, receiver.url)
    queue(rig, "batch_1")
    event_id = settled(rig, made)["id"]
    assert delivery_numbers(rig) == told(retries_total=1, pending=1)
    receiver.answer = lambda received: (200, {})
    make_due(rig, made)
    settled(rig, made, 2)
    assert delivery_numbers(rig) == told(delivered=1, retries_total=1)
    receiver.answer = lambda received: (410, {})
    queue(rig, "batch_2")
    wait_until(lambda: delivery_numbers(rig)["failed"] == 1, "one is given up")
    path = f"/v1/webhook_endpoints/{made['id']}"
    wait_until(lambda: rig.http.get(path).json()["status"] == "disabled", "a disabled endpoint")
    receiver.answer = lambda received: (200, {})
    rig.post(path, {"status": "enabled"})
    rig.post(f"{path}/deliveries/{event_id}/resend", None)
    receiver.wait_for(4)
    wait_until(lambda: delivery_numbers(rig)["delivered"] == 2, "it is delivered again")
    assert delivery_numbers(rig) == told(delivered=2, failed=1, retries_total=1)


def test_metrics_count_pending_deliveries_and_those_given_up(rig: Rig) -> None:
    made = [create(rig, "https://example.com/"), create(rig, "https://example.com/b")]
    queue(rig, "batch_1")
    queue(rig, "batch_2")
    assert delivery_numbers(rig) == told(pending=4)
    rig.post(f"/v1/webhook_endpoints/{made[0]['id']}", {"status": "disabled"})
    rig.http.delete(f"/v1/webhook_endpoints/{made[1]['id']}")
    assert delivery_numbers(rig) == told(failed=2)


def test_a_success_that_is_settled_twice_counts_once(rig: Rig) -> None:
    made = create(rig, "https://example.com/")
    queue(rig, "batch_1")
    event_id = deliveries(rig, made)[0]["id"]
    settle = rig.redis.register_script(SETTLE)
    key = object_names.hook_event_key(made["id"], event_id)
    for _ in range(2):
        assert settle(keys=[key], args=[made["id"], event_id, "", "delivered", "{}"]) == 1
    assert delivery_numbers(rig) == told(delivered=1)


# What makes events.


@pytest.mark.usefixtures("sender")
def test_a_background_job_tells_its_end(rig: Rig, receiver: Receiver) -> None:
    rig.load()
    types = ["job.finished", "job.failed", "job.cancelled"]
    create(rig, receiver.url, types)
    ids = {}
    for ending in ("finished", "failed", "cancelled"):
        job_id = rig.chat_soon(background=True).result().json()["id"]
        ids[job_id] = f"job.{ending}"
        if ending == "cancelled":
            assert rig.http.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
            continue
        taken = rig.take()
        if ending == "finished":
            taken.answer("hello")
        else:
            taken.failed("grammar_failed", "no")
        rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, job_id)
    events = [json.loads(one.body) for one in receiver.wait_for(3)]
    assert {event["data"]["id"]: event["type"] for event in events} == ids


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize(("reason", "ending"), [("stop", "completed"), ("length", "incomplete")])
def test_a_background_response_tells_its_end(
    rig: Rig, client: OpenAI, receiver: Receiver, reason: str, ending: str
) -> None:
    rig.load()
    made = create(rig, receiver.url, [kind for kind in EVENT_TYPES if kind.startswith("response")])
    response = client.responses.create(model="fake", input="hi", background=True)
    taken = rig.take()
    taken.started()
    taken.chunk('"finish_reason":"length"', finish_reason=reason)
    taken.finished()
    (received,) = receiver.wait_for()
    event = unwrapped(client, received, made["signing_secret"])
    assert (event.type, event.data.id) == (f"response.{ending}", response.id)
    assert client.responses.retrieve(response.id).status == ending


def test_a_job_that_somebody_waits_for_makes_no_event(rig: Rig) -> None:
    rig.load()
    made = create(rig, "https://example.com/", list(EVENT_TYPES))
    answer = rig.chat_soon()
    rig.take().answer("hello")
    assert answer.result().status_code == 200
    assert deliveries(rig, made) == []


def test_a_broken_endpoint_does_not_stop_the_end_of_a_job(rig: Rig, store: JobStore) -> None:
    rig.load()
    rig.redis.set(object_names.hooks_key(""), "of another type")
    job_id = rig.chat_soon(background=True).result().json()["id"]
    rig.take().answer("hello")
    assert rig.record(job_id).status == "finished"


def test_endpoints_of_another_key_do_not_exist(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, api_key="one", management_key="two") as rig:
        one, two = (
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            for key in ("one", "two")
        )
        body = {"name": "a", "url": "http://localhost:1/", "event_types": BATCHES}
        refused = rig.http.post("/v1/webhook_endpoints", json=body, headers=one)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url")
        made = rig.http.post("/v1/webhook_endpoints", json=body, headers=two).json()
        path = f"/v1/webhook_endpoints/{made['id']}"
        assert rig.http.get(path, headers=two).status_code == 200
        assert rig.http.get(path, headers=one).status_code == 404
        assert rig.http.post(path, json={"name": "b"}, headers=one).status_code == 404
        assert rig.http.delete(path, headers=one).status_code == 404
        assert rig.http.get("/v1/webhook_endpoints", headers=one).json()["data"] == []


def test_a_client_without_the_management_key_reaches_no_private_address(
    tmp_path: Path, redis_url: str, receiver: Receiver
) -> None:
    """Also when the name leads there only at the attempt."""
    with (
        running_api(tmp_path, redis_url, api_key="one", management_key="two") as rig,
        sending(redis_url),
    ):
        headers = {"Authorization": "Bearer one"}
        body = {"name": "a", "url": "https://example.com/", "event_types": BATCHES}
        made = rig.http.post("/v1/webhook_endpoints", json=body, headers=headers).json()
        # What a name server could answer later.
        rig.redis.hset(object_names.hook_key(made["id"]), "url", receiver.url)
        caller = rig.redis.hget(object_names.hook_key(made["id"]), "caller").decode()
        queue(rig, "batch_1", caller=caller)

        def attempts() -> Any:
            path = f"/v1/webhook_endpoints/{made['id']}/deliveries"
            return rig.http.get(path, headers=headers).json()["data"][0]["attempts"]

        (attempt,) = wait_until(attempts, "an attempt")
        assert "private" in attempt["error"]
        assert receiver.requests == []


def test_openai_python_sends_and_reads_over_a_strict_client(rig: Rig, receiver: Receiver) -> None:
    with openai_client(rig.url, timeout_s=20) as client:
        made = client.webhooks.create(
            event_types=["response.completed"], name="strict", url=receiver.url
        )
        assert client.webhooks.rotate_secret(made.id).signing_secret != made.signing_secret
