"""Responses over HTTP, checked by the official client's own types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI

from api.web import sse
from jobs.contract.events import CalledTool
from tests.helpers.sse import frames
from tests.integration.api_rig import Rig, running_api
from tests.integration.responses_rig import ADD, answered

HELLO = {"role": "user", "content": "hi"}


def test_a_response_is_whole_and_stored(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    future = background(
        client.responses.create, model="fake", input="hello", instructions="Be brief."
    )
    job = rig.take()
    assert [m.content for m in job.request.prompts[0].messages] == ["Be brief.", "hello"]
    job.answer("Hel", "lo!")
    answer = future.result(20)
    assert answer.id == job.job_id
    assert (answer.status, answer.output_text, answer.model) == ("completed", "Hello!", "fake")
    assert (answer.usage.total_tokens, answer.usage.input_tokens_details.cached_tokens) == (5, 1)
    assert client.responses.retrieve(answer.id) == answer
    assert client.responses.retrieve(answer.id) == answer  # from what is kept by now


def test_a_stream_has_numbers_names_and_no_done(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/responses", {"input": "hi", "stream": True})
    job = rig.take()
    job.answer("Hel", "lo!")
    answer = future.result()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["X-Job-Id"] == job.job_id
    assert "[DONE]" not in answer.text
    assert "\nid:" not in answer.text
    told = frames(answer.text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert rig.http.get(f"/v1/responses/{job.job_id}").json() == told[-1]["response"]


def test_the_clients_stream_helper_puts_it_together(
    rig: Rig, client: OpenAI, background: Any
) -> None:
    rig.load()

    def read() -> Any:
        with client.responses.stream(model="fake", input="hi", tools=[ADD]) as stream:
            return [event.type for event in stream], stream.get_final_response()

    future = background(read)
    job = rig.take()
    job.started()
    job.chunk("", reasoning="Hm.")
    job.chunk("I add.")
    call = CalledTool(0, "call_1", "add", '{"a": 1}')
    job.chunk("", tool_calls=[call], finish_reason="tool_calls")
    job.finished()
    kinds, final = future.result(20)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    reasoning, message, called = final.output
    assert reasoning.content[0].text == "Hm."
    assert message.content[0].text == "I add."
    assert (called.call_id, called.name, called.arguments) == ("call_1", "add", '{"a": 1}')


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_error_before_the_first_byte_is_a_status_and_names_our_field(
    rig: Rig, stream: bool
) -> None:
    rig.load()
    future = rig.post_soon("/v1/responses", {"input": "hi", "stream": stream})
    rig.take().failed("context_length_exceeded", "600 tokens do not fit", "messages")
    answer = future.result()
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_an_error_after_the_first_byte_fails_the_response(
    rig: Rig, client: OpenAI, background: Any
) -> None:
    rig.load()

    def read() -> list[Any]:
        return list(client.responses.create(model="0", input="hi", stream=True))

    future = background(read)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    job.failed("worker_lost", "the worker died")
    last = future.result(20)[-1]
    assert (last.type, last.response.error.message) == ("response.failed", "the worker died")
    stored = client.responses.retrieve(job.job_id)
    assert stored == last.response


def test_a_second_attempt_goes_on_where_the_first_stopped(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/responses", {"input": "hi", "stream": True})
    job = rig.take()
    job.started()
    job.chunk("Hel")
    record = rig.record(job.job_id)
    assert rig.store.return_to_queue(record, record.worker, counted_as="deaths")
    rig.take().answer("lo")
    told = frames(future.result().text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert sum(event["type"] == "response.created" for event in told) == 1
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 1}, "input"),
        ({"input": [1]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "temperature": 3}, "temperature"),
        ({"input": "x", "top_k": "many"}, "top_k"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "previous_response_id": "resp_none"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "half \ud83d"}, "previous_response_id"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "x", "reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"input": "x", "text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"input": "x", "metadata": {"a": "half \ud83d"}}, "metadata"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(
    rig: Rig, body: dict[str, Any], param: str
) -> None:
    rig.load()
    # Not the client's own encoder: it refuses half a surrogate pair itself.
    headers = {"Content-Type": "application/json"}
    answer = rig.http.post("/v1/responses", content=json.dumps(body), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert not rig.redis.keys("mgs:response:*")


def test_what_an_agent_sends_besides_is_no_error(rig: Rig) -> None:
    rig.load()
    extra = {
        "tools": [{"type": "web_search"}, {"type": "local_shell"}, {"type": "custom", "name": "p"}],
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "truncation": "auto",
        "user": "u",
        "parallel_tool_calls": False,
        "reasoning": None,
        "client_metadata": {"x": "y"},
    }
    answer = answered(rig, "x", **extra)
    assert (answer["status"], answer["tools"], answer["user"]) == ("completed", [], "u")


def test_input_tokens_are_counted(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    future = background(
        client.responses.input_tokens.count, model="fake", input="hi", instructions="Be brief."
    )
    job = rig.take_control()
    assert [m.role for m in job.request.prompt.messages] == ["system", "user"]
    job.finished(num_tokens=9)
    assert future.result(20).input_tokens == 9


def test_the_original_servers_route_counts_the_same(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/responses/input_tokens", {"model": "fake", "input": "hi"})
    job = rig.take_control()
    assert [(m.role, m.content) for m in job.request.prompt.messages] == [("user", "hi")]
    job.finished(num_tokens=2)
    assert future.result().json() == {"object": "response.input_tokens", "input_tokens": 2}


def test_a_purged_stream_is_told_as_cancelled(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/responses", {"input": "hi", "stream": True})
    job = rig.take()
    job.started()
    job.chunk("Hel")
    job.cancelled()
    last = frames(future.result().text)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")


def test_a_full_queue_is_a_429(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_queued_per_model=1) as rig:
        rig.load()
        rig.post("/v1/responses", {"input": "hi", "background": True})
        client = OpenAI(base_url=f"{rig.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(APIError) as caught:
            client.responses.create(model="0", input="hi", background=True)
        assert caught.value.code == "queue_full"


@pytest.mark.parametrize(
    ("path", "alive"),
    [
        ("/v1/responses", "event: keepalive\n"),
        ("/v1/messages", "event: ping\n"),
        ("/v1/chat/completions", ":\n"),
    ],
)
def test_a_stream_is_kept_alive_while_its_prompt_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str, alive: str
) -> None:
    """By events where clients take comments for silence."""
    monkeypatch.setattr(sse, "_PING_S", 0.15)
    monkeypatch.setattr(sse, "_TICK_S", 0.05)
    rig.load()
    given = {"input": "hi"} if path == "/v1/responses" else {"messages": [HELLO], "max_tokens": 5}
    with rig.http.stream("POST", path, json={**given, "stream": True}) as stream:
        texts = stream.iter_text()
        job = rig.take()
        job.started()
        told = ""
        while told.count(alive) < 3:
            told += next(texts)
        assert "Hello" not in told
        job.chunk("Hello", finish_reason="stop")
        job.finished()
        assert "Hello" in told + "".join(texts)
