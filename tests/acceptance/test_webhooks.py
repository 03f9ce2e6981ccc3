"""Webhooks of the whole server, made and read with OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.helpers.receiver import Receiver, receiving
from tests.helpers.sdk import openai_client
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

TYPES: Any = ["response.completed", "batch.completed", "batch.failed"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def client(own_server: Server) -> Iterator[OpenAI]:
    own_server.load("fake")
    own_server.start("batches", "api.batch_runner")
    try:
        with openai_client(own_server.url) as client:
            yield client
    finally:
        own_server.processes["batches"].kill()
        own_server.processes["batches"].wait(10)


def start_batch(client: OpenAI, body: dict[str, Any]) -> str:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    data = ("lines.jsonl", json.dumps(line).encode())
    file = client.files.create(file=data, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


def test_the_ends_of_responses_and_batches_are_told(
    own_server: Server, client: OpenAI, receiver: Receiver
) -> None:
    endpoint = client.webhooks.create(name="all", url=receiver.url, event_types=TYPES)
    messages = [{"role": "user", "content": "hi"}]
    ids = {
        client.responses.create(model="fake", input="hi", background=True).id,
        start_batch(client, {"model": "fake", "messages": messages, "max_tokens": 5}),
    }
    # What ends while no runner is alive is told by the next one.
    own_server.processes["batches"].kill()
    own_server.processes["batches"].wait(10)
    ids.add(client.responses.create(model="fake", input="hello", background=True).id)
    own_server.start("batches", "api.batch_runner")

    def told() -> dict[str, Any] | None:
        events = [
            client.webhooks.unwrap(one.body, one.headers, secret=endpoint.signing_secret)
            for one in list(receiver.requests)
        ]
        found = {event.data.id: event.type for event in events}
        return found if ids <= found.keys() else None

    found = wait_until(told, "the events", 60)
    assert found is not None
    assert {found[one] for one in ids} == {"response.completed", "batch.completed"}
    assert sum(kind == "batch.completed" for kind in found.values()) == 1


def test_a_batch_that_fails_is_told(client: OpenAI, receiver: Receiver) -> None:
    endpoint = client.webhooks.create(name="all", url=receiver.url, event_types=TYPES)
    file = client.files.create(file=("lines.jsonl", b"no json"), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    (received,) = receiver.wait_for()
    event = client.webhooks.unwrap(received.body, received.headers, secret=endpoint.signing_secret)
    assert (event.type, event.data.id) == ("batch.failed", batch.id)


def test_a_batch_is_made_once_for_its_key(client: OpenAI) -> None:
    file = client.files.create(file=("lines.jsonl", b"no json"), purpose="batch")
    ids = {
        client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers={"Idempotency-Key": "b"},
        ).id
        for _ in range(3)
    }
    assert len(ids) == 1
