"""Generation over HTTP: whole and streamed answers, checked by the official client's own types."""

from __future__ import annotations

from typing import Any

import pytest
from openai import APIError, APIStatusError, OpenAI

from api.execution import worker_liveness
from api.execution.services import Services
from api.execution.submissions import new_ticket
from jobs.contract.errors import ModelUnloadedError
from jobs.contract.events import TokenLogprob
from jobs.contract.records import JobStatus
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt
from jobs.contract.sampling import Sampling
from jobs.storage import names
from tests.helpers.sse import frames
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig

HELLO: Any = [{"role": "user", "content": "hello"}]


def test_a_chat_is_answered_whole(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    future = background(client.chat.completions.create, model="fake", messages=HELLO)
    job = rig.take()
    job.answer("Hel", "lo!")
    answer = future.result(20)
    assert answer.id == job.job_id
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "fake")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 2, 5)
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert answer.timings["queue_ms"] == 1.5


def test_a_chat_is_streamed_in_openai_order(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()

    def read() -> list[Any]:
        stream = client.chat.completions.create(
            model="fake", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        return list(stream)

    future = background(read)
    rig.take().answer("Hel", "lo!")
    role, first, second, finish, usage = future.result(20)
    assert (role.choices[0].delta.role, role.choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].delta.content for chunk in (first, second, finish)] == [
        "Hel",
        "lo!",
        "",
    ]
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage.total_tokens == 5
    assert usage.timings["prefill_ms"] == 2.5
    assert {chunk.id for chunk in (role, first, second, finish, usage)} == {role.id}


def test_a_text_is_completed_with_log_probabilities(
    rig: Rig, client: OpenAI, background: Any
) -> None:
    rig.load()
    future = background(
        client.completions.create, model="0", prompt="Once", logprobs=1, max_tokens=2
    )
    job = rig.take()
    job.started()
    first = TokenLogprob(5, " upon", -0.5, [32], [TokenLogprob(5, " upon", -0.5, [32])])
    second = TokenLogprob(6, " a", -1e30, [97], [TokenLogprob(9, " the", -0.1, [98])])
    job.chunk(" upon", logprobs=[first])
    job.chunk(" a", logprobs=[second], finish_reason="length")
    job.finished()
    answer = future.result(20)
    assert answer.object == "text_completion"
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == (" upon a", "length")
    assert choice.logprobs.tokens == [" upon", " a"]
    assert choice.logprobs.text_offset == [0, 5]
    assert choice.logprobs.token_logprobs == [-0.5, -9999.0]
    assert choice.logprobs.top_logprobs[1] == {" the": -0.1, " a": -9999.0}
    assert job.request.sampling.num_logprobs == 1


def test_chat_log_probabilities_have_bytes(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    future = background(
        client.chat.completions.create,
        model="fake",
        messages=HELLO,
        logprobs=True,
        top_logprobs=1,
    )
    job = rig.take()
    job.started()
    token = TokenLogprob(5, "A", -0.5, [65], [TokenLogprob(5, "A", -0.5, [65])])
    job.chunk("A", logprobs=[token], finish_reason="stop")
    job.finished()
    content = future.result(20).choices[0].logprobs.content
    assert (content[0].token, content[0].bytes, content[0].top_logprobs[0].logprob) == (
        "A",
        [65],
        -0.5,
    )


def test_choices_of_several_prompts_keep_their_places(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/completions", {"prompt": ["a", "b"], "n": 2, "echo": True})
    job = rig.take()
    assert [prompt.text for prompt in job.request.prompts] == ["a", "b"]
    job.started()
    for choice in (3, 1, 0, 2):
        job.chunk(f"<{choice}>", choice=choice, finish_reason="stop")
    job.finished()
    choices = future.result().json()["choices"]
    assert [choice["text"] for choice in choices] == ["a<0>", "a<1>", "b<2>", "b<3>"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]


def test_a_text_stream_ends_with_the_complete_text_and_usage(rig: Rig) -> None:
    rig.load()
    body = {"prompt": "Once", "stream": True, "complete_text": True}
    future = rig.post_soon("/v1/completions", body)
    rig.take().answer(" upon", " a time")
    answer = future.result()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "\nid:" not in answer.text
    *chunks, last, done = frames(answer.text)
    assert done == "[DONE]"
    assert last["choices"] == [{"index": 0, "text": "", "complete_text": " upon a time"}]
    assert last["usage"]["total_tokens"] == 5
    assert [chunk["choices"][0]["text"] for chunk in chunks] == [" upon", " a time", ""]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_template_on_the_text_route_gives_a_chat(rig: Rig) -> None:
    rig.load()
    body = {"prompt": "hello", "apply_chat_template": True}
    future = rig.post_soon("/v1/completions", body)
    job = rig.take()
    assert job.request.prompts[0].is_chat
    job.answer("Hi")
    assert future.result().json()["choices"][0]["message"]["content"] == "Hi"


def test_values_given_at_load_hold_where_the_request_says_nothing(rig: Rig) -> None:
    rig.load(defaults=GenerationDefaults(temperature=0.25, max_tokens=7, top_p=0.5))
    future = rig.chat_soon(top_p=0.75)
    job = rig.take()
    assert job.request.sampling.temperature == 0.25
    assert job.request.sampling.top_p == 0.75
    assert job.request.max_tokens == 7
    job.answer("x")
    assert future.result().status_code == 200


def test_the_job_id_is_in_a_header_before_the_body(rig: Rig) -> None:
    rig.load()
    future = rig.chat_soon(stream=True)
    job = rig.take()
    job.answer("x")
    assert future.result().headers["X-Job-Id"] == job.job_id


def test_an_error_before_the_first_byte_is_a_real_status(rig: Rig) -> None:
    rig.load()
    future = rig.chat_soon(stream=True)
    job = rig.take()
    job.failed("context_length_exceeded", "600 tokens do not fit", "messages")
    answer = future.result()
    assert answer.status_code == 400
    assert answer.headers["X-Job-Id"] == job.job_id
    assert answer.json() == {
        "error": {
            "message": "600 tokens do not fit",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
        "detail": "600 tokens do not fit",
    }


def test_an_error_after_the_first_byte_is_a_frame(
    rig: Rig, client: OpenAI, background: Any
) -> None:
    rig.load()
    seen = []

    def read() -> None:
        for chunk in client.chat.completions.create(model="0", messages=HELLO, stream=True):
            seen.append(chunk.choices[0].delta.content)

    future = background(read)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    job.failed("worker_lost", "the worker died")
    with pytest.raises(APIError, match="the worker died"):
        future.result(20)
    assert seen == ["", "Hel"]


def test_a_cancelled_job_answers_410_which_no_sdk_repeats(rig: Rig, background: Any) -> None:
    rig.load()
    client = OpenAI(base_url=f"{rig.url}/v1", api_key="none", max_retries=2)
    future = background(client.chat.completions.create, model="0", messages=HELLO)
    job = rig.take()
    job.cancelled()
    with pytest.raises(APIStatusError) as caught:
        future.result(20)
    assert caught.value.status_code == 410
    assert caught.value.code == "job_cancelled"
    assert rig.waiting_ids() == []


def test_a_second_attempt_goes_on_where_the_first_stopped(rig: Rig) -> None:
    rig.load()
    future = rig.chat_soon(stream=True)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    record = rig.record(job.job_id)
    assert rig.store.return_to_queue(record, record.worker, counted_as="deaths")
    rig.take().answer("lo")
    contents = [
        frame["choices"][0]["delta"]["content"]
        for frame in frames(future.result().text)
        if frame != "[DONE]"
    ]
    assert contents == ["", "Hel", "lo", ""]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_job_whose_events_are_gone_is_no_answer(rig: Rig, stream: bool) -> None:
    rig.load()
    future = rig.chat_soon(stream=stream)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    rig.redis.hset(names.job_key(job.job_id), "status", "finished")
    rig.redis.delete(names.log_key(job.job_id))
    answer = future.result()
    assert "job_not_found" in answer.text
    assert answer.status_code == (200 if stream else 404)
    assert "[DONE]" not in answer.text


async def test_a_job_whose_model_went_away_meanwhile_is_taken_back(rig: Rig) -> None:
    desired = rig.load()
    rig.desired_models.remove("0")
    services = Services.create(rig.settings)
    await services.start()
    request = GenerateRequest(prompts=[Prompt(text="x")], sampling=Sampling())
    ticket = new_ticket(services.runner, desired, request)
    with pytest.raises(ModelUnloadedError):
        await services.runner.submit_ticket(ticket)
    await services.stop()
    assert rig.waiting_ids() == []
    assert rig.record(ticket.job_id).status is JobStatus.CANCELLED


def test_a_job_that_waits_for_an_unloaded_model_is_a_410(rig: Rig) -> None:
    rig.load()
    future = rig.chat_soon()
    [job_id] = wait_until(rig.waiting_ids, "the job is queued")
    rig.desired_models.remove("0")
    answer = future.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "model_unloaded")
    wait_until(lambda: rig.record(job_id).status is JobStatus.CANCELLED, "the job is taken back")


def test_a_job_that_nobody_drains_is_a_503(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_liveness, "_INTERVAL_S", 0.05)
    rig.load()
    rig.desired_models.forget_status("0")
    answer = rig.chat_soon(stream=True).result()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["error"]["code"] == "not_ready"
    wait_until(lambda: not rig.waiting_ids(), "the job is taken back")
