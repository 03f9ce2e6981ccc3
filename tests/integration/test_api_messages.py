"""Anthropic's Messages API over HTTP, checked by the official client's own types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from jobs.contract.events import CalledTool
from jobs.contract.records import JobStatus
from jobs.contract.requests import TokenCountRequest
from jobs.storage import names
from tests.helpers.anthropic_bodies import ADD, USER, check_anthropic_error
from tests.helpers.sse import frames
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, read_until, running_api

PATH = "/v1/messages"
BODY: dict[str, Any] = {"max_tokens": 16, "messages": [USER]}


def client_of(rig: Rig, **fields: Any) -> Anthropic:
    """The official client with strict types: a field off its type raises."""
    options = {"api_key": "none", "max_retries": 0, "timeout": 20, **fields}
    return Anthropic(base_url=rig.url, _strict_response_validation=True, **options)


@pytest.fixture
def claude(rig: Rig) -> Iterator[Anthropic]:
    with client_of(rig) as client:
        yield client


def check_error(body: Any, kind: str, code: str) -> None:
    assert (check_anthropic_error(body), body["error"]["type"]) == (code, kind)


def test_a_message_is_whole(rig: Rig, claude: Anthropic, background: Any) -> None:
    rig.load()
    future = background(
        claude.messages.create,
        model="fake",
        system="Be brief.",
        extra_body={"temperature": 0.5},  # the client has no name for it any more
        **BODY,
    )
    job = rig.take()
    assert [m.content for m in job.request.prompts[0].messages] == ["Be brief.", "hi"]
    assert (job.request.max_tokens, job.request.sampling.temperature) == (16, 0.5)
    job.answer("Hel", "lo!")
    message = future.result(20)
    assert message.id == job.job_id
    assert message.id.startswith("msg_")
    assert [block.text for block in message.content] == ["Hello!"]
    assert (message.model, message.stop_reason) == ("fake", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (2, 1, 2)


def test_a_stream_is_put_together_by_the_clients_helper(
    rig: Rig, claude: Anthropic, background: Any
) -> None:
    rig.load()

    def read() -> Any:
        with claude.messages.stream(model="fake", tools=[ADD], **BODY) as stream:
            return [event.type for event in stream], stream.get_final_message()

    future = background(read)
    job = rig.take()
    job.started(prompt_tokens=3)
    job.chunk("", reasoning="Hm.")
    job.chunk("I add.")
    call = CalledTool(0, "call_1", "add", '{"a": 1}')
    job.chunk("", tool_calls=[call], finish_reason="tool_calls")
    job.finished()
    types, message = future.result(20)
    assert types[0] == "message_start"
    assert types[-1] == "message_stop"
    thought, said, called = message.content
    assert (thought.thinking, thought.signature) == ("Hm.", job.job_id)
    assert said.text == "I add."
    assert (called.id, called.name, called.input) == ("call_1", "add", {"a": 1})
    assert message.stop_reason == "tool_use"
    assert message.usage.cache_read_input_tokens == 1


def test_a_stream_has_names_but_neither_ids_nor_done(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon(PATH, {**BODY, "stream": True, "stop_sequences": ["END"]})
    job = rig.take()
    assert job.request.stop == ["END"]
    job.started()
    job.chunk("Hello!", finish_reason="stop", stop="END")
    job.finished()
    answer = future.result()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["X-Job-Id"] == job.job_id
    assert "[DONE]" not in answer.text
    assert "\nid:" not in answer.text
    told = frames(answer.text)
    assert [event["type"] for event in told] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert told[0]["message"]["usage"]["input_tokens"] == 3
    assert told[4]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_the_beta_client_and_its_headers_are_welcome(
    rig: Rig, claude: Anthropic, background: Any
) -> None:
    rig.load()
    future = background(
        claude.beta.messages.create, model="fake", betas=["context-1m-2025-08-07"], **BODY
    )
    rig.take().answer("Hello!")
    assert future.result(20).content[0].text == "Hello!"


def test_the_model_id_decides_which_model_answers(rig: Rig) -> None:
    rig.load()
    rig.load("second", "other")
    for headers, model in [({"X_Model_Id": "second"}, "fake"), ({}, "other")]:
        future = rig.post_soon(PATH, {**BODY, "model": model}, **headers)
        rig.take(names.generation_queue("second")).answer("a")
        assert future.result().json()["model"] == "other"


def test_tokens_are_counted_of_what_the_model_would_read(
    rig: Rig, claude: Anthropic, background: Any
) -> None:
    rig.load()
    future = background(
        claude.messages.count_tokens,
        model="fake",
        messages=[USER],
        system="Be brief.",
        tools=[ADD],
    )
    job = rig.take_control()
    assert isinstance(job.request, TokenCountRequest)
    prompt = job.request.prompt
    assert [m.content for m in prompt.messages] == ["Be brief.", "hi"]
    assert prompt.tools[0]["function"]["name"] == "add"
    job.started()
    job.finished(num_tokens=17)
    assert future.result(20).input_tokens == 17


def test_a_message_in_the_background_is_a_job(rig: Rig) -> None:
    rig.load()
    answer = rig.post(PATH, BODY, Prefer="respond-async")
    assert answer.status_code == 202
    job = rig.take()
    assert answer.json()["id"] == job.job_id
    job.answer("Hello!")
    wait_until(lambda: rig.record(job.job_id).status.is_terminal, "the job has ended")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_takes_its_job_along(rig: Rig, stream: bool) -> None:
    rig.load()
    client = rig.send_raw(PATH, {**BODY, "stream": stream})
    job = rig.take()
    job.started()
    job.chunk("Hel")
    if stream:
        read_until(client, b"Hel")
    client.close()
    wait_until(lambda: rig.record(job.job_id).cancel, "the reason is on record")
    job.cancelled()
    wait_until(lambda: rig.record(job.job_id).status is JobStatus.CANCELLED, "it is cancelled")


def test_a_wrong_request_raises_the_clients_error(rig: Rig, claude: Anthropic) -> None:
    rig.load()
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(
            model="fake", max_tokens=1, messages=[USER], stop_sequences=["x"] * 65
        )
    assert caught.value.type == "invalid_request_error"
    assert caught.value.error_code == "invalid_request"
    assert caught.value.api_message.startswith("stop_sequences: ")


def test_what_the_worker_refuses_has_a_status_and_this_apis_names(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon(PATH, {**BODY, "stream": True})
    job = rig.take()
    job.failed("invalid_request", "response_format: no such keyword", "response_format.x")
    answer = future.result()
    assert answer.status_code == 400
    check_error(answer.json(), "invalid_request_error", "invalid_request")
    assert answer.json()["request_id"] == job.job_id
    error = answer.json()["error"]
    assert error["message"] == "output_config.format: no such keyword"
    assert error["details"]["param"] == "output_config.format.x"


def test_a_prompt_that_is_too_long_is_said_as_agents_look_for_it(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon(PATH, BODY)
    rig.take().failed("context_length_exceeded", "the prompt has 9 tokens", "messages")
    assert future.result().status_code == 400
    assert future.result().json()["error"]["message"].startswith("prompt is too long: ")


def test_a_failure_after_the_first_byte_is_an_error_event(
    rig: Rig, claude: Anthropic, background: Any
) -> None:
    rig.load()

    def read() -> Any:
        with claude.messages.stream(model="fake", **BODY) as stream:
            return list(stream)

    future = background(read)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    job.failed("engine_error", "the engine failed")
    with pytest.raises(anthropic.APIStatusError) as caught:
        future.result(20)
    assert caught.value.type == "api_error"
    assert caught.value.api_message == "the engine failed"
    check_error(caught.value.body, "api_error", "engine_error")
    assert caught.value.body["request_id"] == job.job_id


def test_no_model_is_a_not_found_error(rig: Rig, claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="nobody's", **BODY)
    assert caught.value.type == "not_found_error"


@pytest.mark.parametrize("path", [PATH, f"{PATH}/count_tokens", f"{PATH}/batches"])
def test_every_error_of_these_routes_has_anthropics_shape(rig: Rig, path: str) -> None:
    is_batches = path.endswith("batches")
    wrong = rig.http.put(path) if is_batches else rig.http.get(path)  # no such method
    broken = rig.http.post(path, content=b"{", headers={"Content-Type": "application/json"})
    foreign = rig.http.get(path, headers={"Host": "evil.example"})
    assert (wrong.status_code, broken.status_code) == (405, 400)
    check_error(broken.json(), "invalid_request_error", "invalid_request")
    check_anthropic_error(wrong.json())
    assert foreign.status_code == 421
    check_error(foreign.json(), "permission_error", "host_not_allowed")


def test_a_full_queue_is_a_rate_limit(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_queued_per_model=1) as rig, client_of(rig) as claude:
        rig.load()
        rig.post_soon(PATH, BODY)
        wait_until(rig.waiting_ids, "one waits")
        with pytest.raises(anthropic.RateLimitError) as caught:
            claude.messages.create(model="fake", **BODY)
        assert caught.value.type == "rate_limit_error"
        assert caught.value.response.headers["Retry-After"] == "1"
        rig.take().answer("a")


def test_a_body_that_is_too_large_is_told_so(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_body_bytes=1024) as rig:
        answer = rig.post(PATH, {**BODY, "system": "x" * 2000})
        assert answer.status_code == 413
        check_error(answer.json(), "request_too_large", "body_too_large")


def test_the_key_may_come_in_either_header(tmp_path: Path, redis_url: str, background: Any) -> None:
    with running_api(tmp_path, redis_url, api_key="secret") as rig:
        rig.load()
        for given in ({"api_key": "secret"}, {"api_key": None, "auth_token": "secret"}):
            with client_of(rig, **given) as claude:
                future = background(claude.messages.create, model="fake", **BODY)
                rig.take().answer("a")
                assert future.result(20).content[0].text == "a"
        with client_of(rig, api_key="wrong") as claude:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                claude.messages.create(model="fake", **BODY)
            assert caught.value.type == "authentication_error"
