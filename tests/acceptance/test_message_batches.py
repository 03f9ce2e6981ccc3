"""Anthropic's Message Batches with Anthropic's client, on the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from jobs.storage import object_names
from jobs.storage.connection import connect
from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until

MESSAGE: Any = {
    "model": "demo",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "hello"}],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = make_server()
    try:
        found.start_all()
        found.start("batches", "api.batch_runner")
        found.load("demo")
        yield found
    finally:
        found.processes["batches"].terminate()
        found.processes["batches"].wait(20)
        found.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=server.url, api_key="none", max_retries=0, _strict_response_validation=True
    ) as found:
        yield found


def request(custom_id: str, **params: Any) -> Any:
    return {"custom_id": custom_id, "params": {**MESSAGE, "temperature": 0.0, **params}}


def ended(client: Anthropic, batch_id: str) -> Any:
    def look() -> Any:
        batch = client.messages.batches.retrieve(batch_id)
        return batch if batch.processing_status == "ended" else None

    return wait_until(look, "the end of the batch", 60)


def test_a_batch_of_messages_is_answered_as_the_messages_are(client: Anthropic) -> None:
    batch = client.messages.batches.create(
        requests=[
            request("good"),
            request("same"),
            request("streamed", stream=True),
            request("too-few", max_tokens=0),
            request("unknown", model="nobody"),
        ]
    )
    assert batch.id.startswith("msgbatch_")
    assert (batch.processing_status, batch.results_url) == ("in_progress", None)
    assert batch.request_counts.processing == 5
    batch = ended(client, batch.id)
    counts = batch.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 2, 3)
    results = {one.custom_id: one.result for one in client.messages.batches.results(batch.id)}
    assert list(results) == ["good", "same", "streamed", "too-few", "unknown"]
    alone = client.messages.create(**MESSAGE, extra_body={"temperature": 0.0})
    assert results["good"].message.content == results["same"].message.content == alone.content
    assert results["good"].message.usage.output_tokens == alone.usage.output_tokens
    assert results["good"].message.usage.service_tier == "batch"
    for name in ("streamed", "too-few", "unknown"):
        assert results[name].type == "errored"
        assert results[name].error.type == "error"
    assert results["too-few"].error.error.type == "invalid_request_error"
    assert results["unknown"].error.error.type == "not_found_error"


def test_a_cancelled_batch_keeps_what_was_answered(client: Anthropic) -> None:
    batch = client.messages.batches.create(
        requests=[request(f"r{n}", max_tokens=200) for n in range(600)]
    )
    cancelled = client.messages.batches.cancel(batch.id)
    assert cancelled.processing_status in ("canceling", "ended")
    assert cancelled.cancel_initiated_at is not None
    counts = ended(client, batch.id).request_counts
    assert counts.succeeded + counts.canceled + counts.errored == 600
    assert counts.canceled > 0
    kinds = [one.result.type for one in client.messages.batches.results(batch.id)]
    assert kinds.count("canceled") == counts.canceled
    assert len(kinds) == 600


def test_a_batch_is_deleted_once_it_has_ended(client: Anthropic) -> None:
    batch = client.messages.batches.create(requests=[request("one")])
    with pytest.raises(anthropic.AnthropicError):
        client.messages.batches.results(batch.id)
    ended(client, batch.id)
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
    for call in (client.messages.batches.retrieve, client.messages.batches.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(batch.id)


def test_batches_are_listed_in_both_directions(client: Anthropic) -> None:
    made = [client.messages.batches.create(requests=[request("one")]).id for _ in range(5)]
    listed = [batch.id for batch in client.messages.batches.list(limit=2)]
    assert listed[:5] == sorted(made, reverse=True)
    newer = [batch.id for batch in client.messages.batches.list(limit=2, before_id=min(made))]
    assert sorted(newer) == sorted(made)[1:]


def test_the_beta_names_of_the_client_are_the_same_routes(client: Anthropic) -> None:
    batches = client.beta.messages.batches
    batch = batches.create(requests=[request("one")])
    ended(client, batch.id)
    assert batches.retrieve(batch.id).processing_status == "ended"
    (result,) = batches.results(batch.id)
    assert (result.custom_id, result.result.type) == ("one", "succeeded")
    assert batch.id in [one.id for one in batches.list(limit=3)]
    assert batches.delete(batch.id).id == batch.id


def test_a_batch_goes_on_after_a_kill_of_the_runner_and_of_the_api(
    server: Server, client: Anthropic
) -> None:
    names = [f"r{n}" for n in range(120)]
    batch = client.messages.batches.create(requests=[request(name) for name in names])
    for name, module in (("batches", "api.batch_runner"), ("web", "api")):
        server.processes[name].kill()
        server.processes[name].wait()
        server.start(name, module)
    wait_until(server.is_ready, "the API again")
    assert ended(client, batch.id).request_counts.succeeded == len(names)
    results = list(client.messages.batches.results(batch.id))
    assert [one.custom_id for one in results] == names
    texts = {one.result.message.content[0].text for one in results}
    assert len(texts) == 1


def test_a_cancel_while_the_results_are_written_is_shown_until_the_batch_has_ended(
    server: Server, client: Anthropic
) -> None:
    batch = client.messages.batches.create(requests=[request(f"r{n}") for n in range(3)])
    folder = Path(server.env["MGS_STATE_DIR"]) / "files" / "batches" / batch.id
    obstacle = folder / "results.jsonl.new"  # a disk that does not take the results
    obstacle.mkdir()
    with connect(server.redis_url) as redis:
        key = object_names.batch_key(batch.id)
        wait_until(lambda: redis.hget(key, "status") == b"finalizing", "all have an answer")
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    first = client.messages.batches.cancel(batch.id)
    assert (first.processing_status, first.results_url) == ("canceling", None)
    assert first.cancel_initiated_at is not None
    again = client.messages.batches.cancel(batch.id)
    assert (again.processing_status, again.cancel_initiated_at) == (
        "canceling",
        first.cancel_initiated_at,
    )
    obstacle.rmdir()
    found = ended(client, batch.id)
    assert (found.cancel_initiated_at, found.request_counts.succeeded) == (
        first.cancel_initiated_at,
        3,
    )
    kinds = [one.result.type for one in client.messages.batches.results(batch.id)]
    assert kinds == ["succeeded"] * 3


def test_a_cancelled_batch_goes_from_canceling_to_ended_and_never_back(client: Anthropic) -> None:
    batch = client.messages.batches.create(
        requests=[request(f"r{n}", max_tokens=200) for n in range(200)]
    )
    client.messages.batches.cancel(batch.id)
    shown: list[str] = []

    def look() -> bool:
        shown.append(client.messages.batches.retrieve(batch.id).processing_status)
        return shown[-1] == "ended"

    wait_until(look, "the end of the batch", 60)
    assert set(shown[:-1]) <= {"canceling"}
