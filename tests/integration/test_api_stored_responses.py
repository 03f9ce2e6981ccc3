"""Responses that go on, are read later, followed again, cancelled or deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from jobs.contract.events import CalledTool
from jobs.contract.records import JobStatus
from jobs.storage import names
from jobs.storage.connection import connect_async
from jobs.storage.lua.job_scripts import RESERVE_S
from jobs.storage.stored_responses import ResponseStore
from tests.helpers.sse import frames
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, Taken, read_until
from tests.integration.responses_rig import ADD, answered


def test_a_response_goes_on_from_the_one_before(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    first = answered(rig, "Hello!", instructions="Be brief.")
    future = background(
        client.responses.create, model="fake", input="And now?", previous_response_id=first["id"]
    )
    job = rig.take()
    assert [(m.role, m.content) for m in job.request.prompts[0].messages] == [
        ("user", "hi"),
        ("assistant", "Hello!"),
        ("user", "And now?"),
    ]
    job.answer("Bye.")
    second = future.result(20)
    assert second.previous_response_id == first["id"]
    page = client.responses.input_items.list(second.id, order="asc")
    assert [item.role for item in page.data] == ["user", "assistant", "user"]
    assert len({item.id for item in page.data}) == 3
    newest = client.responses.input_items.list(second.id, limit=1)
    assert (newest.data[0].id, newest.has_more) == (page.data[2].id, True)


def test_an_item_may_be_named_that_is_stored(rig: Rig, client: OpenAI) -> None:
    rig.load()
    first = answered(rig, "Hello!")
    [asked] = client.responses.input_items.list(first["id"]).data
    said = first["output"][0]["id"]
    items = [
        {"type": "item_reference", "id": asked.id},
        {"id": said},
        {"role": "user", "content": "And now?"},
    ]
    future = rig.post_soon("/v1/responses", {"input": items})
    job = rig.take()
    assert [(m.role, m.content) for m in job.request.prompts[0].messages] == [
        ("user", "hi"),
        ("assistant", "Hello!"),
        ("user", "And now?"),
    ]
    job.answer("Bye.")
    second = future.result().json()
    page = client.responses.input_items.list(second["id"], order="asc")
    assert [item.id for item in page.data][:2] == [asked.id, said]


@pytest.mark.parametrize("item_id", ["msg_0", "", "rs_" + "0" * 36, "x" * 500, "msg_\u00e9"])
def test_an_item_that_is_not_stored_is_refused_by_its_place(rig: Rig, item_id: str) -> None:
    rig.load()
    items = [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": item_id}]
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        answer = rig.post(path, {"input": items})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1].id")


def test_a_tools_output_follows_the_call_that_is_stored(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/responses", {"input": "2+3", "tools": [ADD]})
    job = rig.take()
    job.started()
    call = CalledTool(0, "call_1", "add", '{"a":2,"b":3}')
    job.chunk("", tool_calls=[call], finish_reason="tool_calls")
    job.finished()
    first = future.result().json()
    [called] = first["output"]
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "5"}
    body = {"input": [output], "tools": [ADD], "previous_response_id": first["id"]}
    future = rig.post_soon("/v1/responses", body)
    job = rig.take()
    user, assistant, tool = job.request.prompts[0].messages
    assert user.content == "2+3"
    assert assistant.tool_calls[0].function.arguments == '{"a":2,"b":3}'
    assert (tool.role, tool.tool_call_id, tool.content) == ("tool", "call_1", "5")
    job.answer("5")
    assert future.result().json()["status"] == "completed"


def test_what_is_not_stored_is_not_found(rig: Rig, client: OpenAI) -> None:
    rig.load()
    answer = answered(rig, "x", store=False)
    assert answer["store"] is False
    with pytest.raises(NotFoundError):
        client.responses.retrieve(answer["id"])
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model="0", input="x", previous_response_id=answer["id"])
    assert caught.value.param == "previous_response_id"
    assert not rig.redis.keys("mgs:response:*")


def test_a_deleted_response_is_gone_with_what_its_job_said(rig: Rig, client: OpenAI) -> None:
    rig.load()
    answer = answered(rig, "secret")
    client.responses.delete(answer["id"])
    for path in ("", "/input_items", "?stream=true"):
        assert rig.http.get(f"/v1/responses/{answer['id']}{path}").status_code == 404
    assert rig.http.delete(f"/v1/responses/{answer['id']}").status_code == 404
    assert rig.post(f"/v1/responses/{answer['id']}/cancel", None).status_code == 404
    assert_forgotten(rig, answer["id"])


def test_a_response_outlives_the_log_of_its_job(rig: Rig) -> None:
    rig.load()
    answer = answered(rig, "kept")
    key = names.response_key(answer["id"])
    wait_until(lambda: rig.redis.hexists(key, "answer"), "the answer is kept")
    rig.redis.delete(names.log_key(answer["id"]), names.job_key(answer["id"]))
    assert rig.http.get(f"/v1/responses/{answer['id']}").json() == answer
    assert rig.http.get(f"/v1/responses/{answer['id']}?stream=true").status_code == 404
    assert 0 < rig.redis.ttl(key) - RESERVE_S <= rig.settings.response_ttl_s


def test_a_background_response_is_read_later(rig: Rig, client: OpenAI) -> None:
    rig.load()
    queued = client.responses.create(model="fake", input="hi", background=True)
    assert (queued.status, queued.output, queued.background) == ("queued", [], True)
    job = rig.take()
    assert client.responses.retrieve(queued.id).status == "in_progress"
    with pytest.raises(BadRequestError, match="not ended"):
        client.responses.create(model="0", input="x", previous_response_id=queued.id)
    job.started()
    job.chunk("Hel")
    assert client.responses.retrieve(queued.id).output_text == "Hel"
    job.chunk("lo", finish_reason="stop")
    job.finished()
    done = client.responses.retrieve(queued.id)
    assert (done.status, done.output_text) == ("completed", "Hello")


def test_a_background_stream_goes_on_where_it_broke(rig: Rig, background: Any) -> None:
    rig.load()
    body = {"input": "hi", "background": True, "stream": True}
    broken = rig.send_raw("/v1/responses", body)
    head = read_until(broken, b"response.queued")
    job = rig.take()
    job.started()
    job.chunk("Hel")
    read_until(broken, b'"delta":"Hel"')
    broken.close()
    assert b"response.created" in head
    path = f"/v1/responses/{job.job_id}"
    rest = background(httpx.get, f"{rig.url}{path}?stream=true&starting_after=5", timeout=20)
    job.chunk("lo", finish_reason="stop")
    job.finished()
    told = frames(rest.result(20).text)
    full = frames(rig.http.get(f"{path}?stream=true").text)
    assert [event["sequence_number"] for event in full] == list(range(len(full)))
    assert told == full[6:]
    assert full[5]["type"] == "response.output_text.delta"
    assert full[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
    assert rig.record(job.job_id).cancel == ""


def test_a_background_response_is_cancelled(rig: Rig, client: OpenAI, background: Any) -> None:
    rig.load()
    waiting = client.responses.create(model="fake", input="hi", background=True)
    assert client.responses.cancel(waiting.id).status == "cancelled"
    assert rig.waiting_ids() == []
    running = client.responses.create(model="fake", input="hi", background=True)
    job = rig.take()
    job.started()
    job.chunk("Hel")
    future = background(client.responses.cancel, running.id)
    wait_until(lambda: rig.record(job.job_id).cancel, "the worker is told")
    job.cancelled()
    answer = future.result(20)
    assert (answer.status, answer.output_text, answer.error) == ("cancelled", "Hel", None)
    assert client.responses.cancel(running.id) == answer


def test_a_cancel_changes_nothing_about_what_has_ended(rig: Rig, client: OpenAI) -> None:
    rig.load()
    answer = answered(rig, "done")
    assert client.responses.cancel(answer["id"]).status == "completed"


def test_deleting_a_waiting_response_leaves_nothing_of_it(rig: Rig, client: OpenAI) -> None:
    rig.load()
    waiting = client.responses.create(model="fake", input="secret", background=True)
    client.responses.delete(waiting.id)
    assert rig.waiting_ids() == []
    assert rig.record(waiting.id).status is JobStatus.CANCELLED
    assert_forgotten(rig, waiting.id)


@pytest.mark.parametrize("end", [Taken.cancelled, Taken.finished])
def test_deleting_a_running_response_hides_it_and_leaves_nothing_of_it_at_its_end(
    rig: Rig, client: OpenAI, end: Callable[[Taken], None]
) -> None:
    rig.load()
    running = client.responses.create(model="fake", input="secret", background=True)
    job = rig.take()
    job.started()
    job.chunk("the secret")
    client.responses.delete(running.id)
    assert rig.record(job.job_id).cancel == "the response was deleted"
    assert_hidden(rig, running.id)
    job.chunk("is secret", finish_reason="stop")
    assert_hidden(rig, running.id)
    end(job)
    assert_forgotten(rig, running.id)


def test_who_waits_for_a_response_that_somebody_deletes_is_told(rig: Rig) -> None:
    rig.load()
    waiting = rig.post_soon("/v1/responses", {"input": "hi", "stream": True})
    job = rig.take()
    job.started()
    job.chunk("Hel")
    assert rig.http.delete(f"/v1/responses/{job.job_id}").status_code == 200
    job.cancelled()
    last = frames(waiting.result().text)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
    assert_forgotten(rig, job.job_id)


async def test_an_answer_that_is_kept_late_does_not_bring_a_deleted_response_back(
    rig: Rig,
) -> None:
    rig.load()
    answer = answered(rig, "secret")
    async with connect_async(rig.settings.effective_redis_url) as redis:
        store = ResponseStore(redis, 60)
        record, _ = await store.read(answer["id"])
        await store.delete(answer["id"])
        await store.keep(record, b"secret")
    assert_forgotten(rig, answer["id"])


def assert_hidden(rig: Rig, response_id: str) -> None:
    for path in ("", "/events"):
        assert rig.http.get(f"/v1/jobs/{response_id}{path}").status_code == 404
    assert rig.http.get(f"/v1/responses/{response_id}").status_code == 404
    assert response_id not in rig.http.get("/v1/jobs").text
    assert "secret" not in rig.http.get("/management/processes").text
    assert "secret" not in rig.http.get("/management/debug/latest").text


def assert_forgotten(rig: Rig, response_id: str) -> None:
    """Hidden, and nothing that it was asked or said is in Redis any more."""
    assert_hidden(rig, response_id)
    assert not rig.redis.exists(names.request_key(response_id), names.response_key(response_id))
    rig.redis.config_set("rdbcompression", "no")  # or DUMP would hide what there is
    for key in rig.redis.keys("*"):
        assert b"secret" not in (rig.redis.dump(key) or b""), key


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_takes_its_job_along(rig: Rig, stream: bool) -> None:
    rig.load()
    leaving = rig.send_raw("/v1/responses", {"input": "hi", "stream": stream})
    job = rig.take()
    job.started()
    leaving.close()
    wait_until(lambda: rig.record(job.job_id).cancel, "the job is cancelled")
    job.cancelled()
    wait_until(lambda: rig.record(job.job_id).status is JobStatus.CANCELLED, "it has ended")
    assert rig.http.get(f"/v1/responses/{job.job_id}").json()["status"] == "cancelled"


def test_a_client_that_leaves_a_background_response_does_not(rig: Rig) -> None:
    rig.load()
    leaving = rig.send_raw("/v1/responses", {"input": "hi", "background": True, "stream": True})
    read_until(leaving, b"response.queued")
    leaving.close()
    job = rig.take()
    job.answer("kept")
    shown = rig.http.get(f"/v1/responses/{job.job_id}").json()
    assert (shown["status"], rig.record(job.job_id).cancel) == ("completed", "")
