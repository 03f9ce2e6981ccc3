"""When jobs run, as clients and managers say it over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from jobs.contract.records import JobStatus, WorkerState
from jobs.scheduling.holds import class_queue
from jobs.storage import names
from tests.helpers.taking import run_take
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import WORKER, Rig, running_api

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
GEN = names.generation_queue("0")
BATCH = names.batch_queue("0")


def submit(rig: Rig, **fields: Any) -> str:
    answer = rig.post(CHAT, {**HELLO, "background": True, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job(rig: Rig, job_id: str) -> Any:
    return rig.http.get(f"/v1/jobs/{job_id}").json()


def next_job(rig: Rig, job_class: Any = "interactive") -> str | None:
    """What a worker with a free slot would get."""
    queue = rig.store.queue(class_queue("0", job_class))
    found = run_take(rig.redis, queue, WORKER, job_class=job_class)
    return found.decode() if found else None


def change(rig: Rig, action: str, **body: Any) -> Any:
    answer = rig.post(f"/management/queues/0/{action}", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error_of(answer: Any) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


# Tiers, priorities.


@pytest.mark.parametrize(
    ("fields", "queue", "tier"),
    [
        ({}, GEN, "default"),
        ({"service_tier": "auto"}, GEN, "default"),
        ({"service_tier": "flex"}, BATCH, "flex"),
        ({"service_tier": "fast"}, GEN, "priority"),
        ({"service_tier": "priority", "priority": 5}, GEN, "default"),
        ({"priority": -1}, GEN, "priority"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_names_the_tier_that_its_job_had(
    rig: Rig, fields: dict[str, Any], queue: str, tier: str, stream: bool
) -> None:
    rig.load()
    client = rig.chat_soon(stream=stream, **fields)
    rig.take(queue).answer("Hel", "lo")
    text = client.result().text
    shown = json.loads(text.partition("data: ")[2].partition("\n")[0] if stream else text)
    assert shown["service_tier"] == tier
    later = job(rig, shown["id"])["result"]
    assert later["service_tier"] == tier


def test_the_other_dialects_name_it_in_their_words(rig: Rig) -> None:
    rig.load()
    body = {**HELLO, "max_tokens": 9, "service_tier": "flex"}
    message = rig.post_soon("/v1/messages", body)
    rig.take(BATCH).answer("Hi")
    assert message.result().json()["usage"]["service_tier"] == "batch"
    plain = rig.post_soon("/v1/messages", {**body, "service_tier": "standard_only"})
    rig.take(GEN).answer("Hi")
    assert plain.result().json()["usage"]["service_tier"] == "standard"
    response = rig.post_soon("/v1/responses", {"input": "hi", "service_tier": "flex"})
    rig.take(BATCH).answer("Hi")
    assert response.result().json()["service_tier"] == "flex"


def test_the_sdk_reads_the_tier(rig: Rig, client: OpenAI) -> None:
    rig.load()
    answer = rig._threads.submit(
        client.chat.completions.create,
        model="fake",
        messages=[{"role": "user", "content": "hi"}],
        service_tier="flex",
        extra_body={"priority": 3, "deadline_s": 60},
    )
    taken = rig.take(BATCH)
    record = rig.record(taken.job_id)
    assert (record.job_class, record.priority) == ("batch", 3)
    assert record.deadline_at is not None
    taken.answer("Hi")
    assert answer.result().service_tier == "flex"


# Deadlines.


def test_a_waiting_job_ends_at_its_deadline(rig: Rig) -> None:
    rig.load()
    answer = rig.post(CHAT, {**HELLO, "deadline_s": 0.2})
    assert error_of(answer) == (503, "job_timeout", "deadline_s")
    assert answer.headers["x-should-retry"] == "false"
    record = rig.record(answer.headers["X-Job-Id"])
    assert (record.status, record.error_code) == (JobStatus.FAILED, "job_timeout")
    assert rig.waiting_ids() == []


def test_a_worker_that_keeps_silent_does_not_hold_its_client_beyond_the_deadline(rig: Rig) -> None:
    rig.load()
    client = rig.chat_soon(deadline_s=1)
    taken = rig.take()
    taken.started()
    assert error_of(client.result()) == (503, "job_timeout", "deadline_s")
    wait_until(lambda: rig.record(taken.job_id).cancel, "the job is cancelled")


def test_a_running_job_ends_at_its_deadline_with_what_it_has_said(rig: Rig) -> None:
    rig.load()
    client = rig.chat_soon(stream=True, deadline_s=0.2)
    taken = rig.take()
    taken.started()
    taken.chunk("Hel")
    deadline_at = rig.record(taken.job_id).deadline_at
    wait_until(lambda: deadline_at and time.time() > deadline_at, "the deadline")
    taken.failed("job_timeout", "the job exceeded its time limit")
    text = client.result().text
    assert '"content":"Hel"' in text
    assert '"param":"deadline_s"' in text


def test_an_earlier_deadline_goes_first(rig: Rig) -> None:
    rig.load()
    relaxed, hurried = submit(rig), submit(rig, deadline_s=30)
    assert job(rig, hurried)["deadline_at"] > 0
    assert [next_job(rig), next_job(rig)] == [hurried, relaxed]


# Places.


def test_places_follow_the_priority(rig: Rig) -> None:
    rig.load()
    last, first, middle = submit(rig, priority=5), submit(rig, priority=-5), submit(rig)
    batch = submit(rig, service_tier="flex")
    places = {one: job(rig, one)["queue"] for one in (last, first, middle, batch)}
    assert [places[one]["position"] for one in (first, middle, last, batch)] == [1, 2, 3, 1]
    assert places[last] == {
        "class": "interactive",
        "priority": 5,
        "position": 3,
        "ahead": 2,
        "estimated_start_s": None,
    }
    assert job(rig, last)["wait"]["position"] == 3
    listed = rig.http.get("/v1/jobs", params={"status": "queued"}).json()["data"]
    assert {one["id"]: one["queue"] for one in listed} == places
    assert [next_job(rig), next_job(rig), next_job(rig)] == [first, middle, last]
    assert job(rig, last)["queue"]["position"] is None


def test_an_estimate_needs_recent_starts_and_a_class_that_runs(rig: Rig) -> None:
    desired = rig.load()
    submit(rig)
    second = submit(rig)
    rig.heartbeat(desired, starts_per_s={"interactive": 0.5})
    assert job(rig, second)["queue"]["estimated_start_s"] == 2.0
    answer = rig.post(CHAT, {**HELLO, "background": True})
    assert answer.headers["X-Queue-Position"] == "3"
    assert answer.headers["X-Queue-Wait"] == "4"
    change(rig, "hold")
    assert job(rig, second)["queue"]["estimated_start_s"] is None
    answer = rig.post(CHAT, {**HELLO, "background": True})
    assert answer.headers["X-Queue-Position"] == "4"
    assert "X-Queue-Wait" not in answer.headers


def test_a_background_response_has_the_headers_of_a_background_chat(
    rig: Rig, client: OpenAI
) -> None:
    desired = rig.load()
    submit(rig)
    rig.heartbeat(desired, starts_per_s={"interactive": 0.5})
    create = client.responses.with_raw_response.create
    headers = create(model="fake", input="hi", background=True).headers
    assert (headers["X-Queue-Position"], headers["X-Queue-Wait"]) == ("2", "2")
    chat = rig.post(CHAT, {**HELLO, "background": True})
    assert (chat.headers["X-Queue-Position"], chat.headers["X-Queue-Wait"]) == ("3", "4")
    body = {"input": "hi", "background": True, "stream": True}
    with rig.http.stream("POST", "/v1/responses", json=body) as answer:
        assert (answer.headers["X-Queue-Position"], answer.headers["X-Queue-Wait"]) == ("4", "6")
    change(rig, "hold")
    headers = create(model="fake", input="hi", background=True).headers
    assert headers["X-Queue-Position"] == "5"
    assert "X-Queue-Wait" not in headers


def test_a_hint_of_a_job_that_is_gone_moves_nobody(rig: Rig) -> None:
    rig.load()
    gone, left = submit(rig), submit(rig)
    rig.http.delete(f"/v1/jobs/{gone}")
    rig.redis.zadd(names.hint_key(GEN, ""), {"chatcmpl-unknown": 0})
    assert job(rig, left)["queue"]["position"] == 1


# Changes of a priority.


def test_a_waiting_jobs_priority_is_changed(rig: Rig) -> None:
    rig.load()
    first, second = submit(rig), submit(rig)
    answer = rig.http.patch(f"/v1/jobs/{second}", json={"priority": -7})
    assert answer.json()["queue"] | {"estimated_start_s": None} == {
        "class": "interactive",
        "priority": -7,
        "position": 1,
        "ahead": 0,
        "estimated_start_s": None,
    }
    assert [next_job(rig), next_job(rig)] == [second, first]


def test_a_job_that_runs_or_has_ended_keeps_its_priority(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    taken = rig.take()
    answer = rig.http.patch(f"/v1/jobs/{job_id}", json={"priority": -7})
    assert error_of(answer) == (409, "job_conflict", "priority")
    taken.answer("Hi")
    answer = rig.http.patch(f"/v1/jobs/{job_id}", json={"priority": -7})
    assert error_of(answer) == (409, "job_conflict", "priority")
    assert rig.record(job_id).priority == 0
    assert rig.http.patch("/v1/jobs/chatcmpl-0", json={"priority": 1}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"priority": 101}, {"priority": "1"}, {"priority": 1.5}])
def test_a_wrong_priority_is_a_400(rig: Rig, body: Any) -> None:
    rig.load()
    answer = rig.http.patch(f"/v1/jobs/{submit(rig)}", json=body)
    assert error_of(answer) == (400, "invalid_request", "priority")


# Repetitions.


def test_a_job_that_has_ended_is_repeated_under_a_new_id(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig, priority=3, service_tier="flex")
    rig.take(BATCH).failed("engine_error", "it broke")
    answer = rig.post(f"/v1/jobs/{job_id}/retry", None)
    assert answer.status_code == 202
    assert answer.headers["X-Queue-Position"] == "1"
    retried = answer.json()["id"]
    assert retried != job_id
    rig.take(BATCH).answer("Hel", "lo")
    shown = job(rig, retried)
    assert (shown["retry_of"], shown["background"]) == (job_id, True)
    assert (shown["queue"]["class"], shown["queue"]["priority"]) == ("batch", 3)
    assert shown["result"]["choices"][0]["message"]["content"] == "Hello"
    assert job(rig, job_id)["error"]["code"] == "engine_error"


def test_a_response_is_repeated_as_one(rig: Rig) -> None:
    rig.load()
    client = rig.post_soon("/v1/responses", {"input": "hi"})
    rig.take().answer("One")
    first = client.result().json()
    retried = rig.post(f"/v1/jobs/{first['id']}/retry", None).json()["id"]
    rig.take().answer("Two")
    second = rig.http.get(f"/v1/responses/{retried}").json()
    assert second["id"] == retried
    assert second["output"][0]["content"][0]["text"] == "Two"
    assert rig.http.get(f"/v1/responses/{first['id']}").json()["output"][0]["content"]


def test_a_message_and_a_vector_are_repeated(rig: Rig) -> None:
    rig.load()
    client = rig.post_soon("/v1/messages", {**HELLO, "max_tokens": 9})
    rig.take().answer("One")
    retried = rig.post(f"/v1/jobs/{client.result().json()['id']}/retry", None).json()["id"]
    assert retried.startswith("msg_")
    rig.take().answer("Two")
    assert job(rig, retried)["result"]["content"] == [{"type": "text", "text": "Two"}]
    answer = rig.post("/v1/embeddings", {"input": "x"}, Prefer="respond-async")
    rig.take_control().failed("engine_error", "it broke")
    retried = rig.post(f"/v1/jobs/{answer.json()['id']}/retry", None).json()["id"]
    assert rig.take_control().job_id == retried


def test_what_cannot_be_repeated_is_refused_with_the_reason(rig: Rig) -> None:
    rig.load()
    waiting = submit(rig)
    answer = rig.post(f"/v1/jobs/{waiting}/retry", None)
    assert error_of(answer) == (409, "job_conflict", "job_id")
    rig.take().answer("Hi")
    rig.redis.delete(names.request_key(waiting))
    answer = rig.post(f"/v1/jobs/{waiting}/retry", None)
    assert error_of(answer) == (409, "job_conflict", "job_id")
    assert "no longer stored" in answer.text
    line = submit(rig)
    rig.take().answer("Hi")
    rig.redis.hset(names.job_key(line), mapping={"batch": "batch_1", "line": 4})
    answer = rig.post(f"/v1/jobs/{line}/retry", None)
    assert error_of(answer) == (409, "job_conflict", "job_id")
    assert "batch_1" in answer.text
    assert rig.post("/v1/jobs/chatcmpl-0/retry", None).status_code == 404


# Handing back.


def test_a_running_background_job_is_asked_to_yield(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    rig.take().started()
    worker = rig.record(job_id).worker
    with rig.redis.pubsub() as commands:
        commands.subscribe(names.rq_command_channel(worker))
        assert commands.get_message(timeout=5)
        answer = rig.post(f"/v1/jobs/{job_id}/requeue", None)
        assert answer.status_code == 202
        message = wait_until(lambda: commands.get_message(timeout=0.1), "the command")
    assert json.loads(message["data"]) == {"command": names.YIELD_COMMAND, "job_id": job_id}


def test_what_need_not_be_handed_back_is_refused_with_the_reason(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    answer = rig.post(f"/v1/jobs/{job_id}/requeue", None)
    assert error_of(answer) == (409, "job_conflict", "job_id")
    rig.take().answer("Hi")
    assert "has ended" in rig.post(f"/v1/jobs/{job_id}/requeue", None).text
    client = rig.chat_soon()
    taken = rig.take()
    taken.started()
    answer = rig.post(f"/v1/jobs/{taken.job_id}/requeue", None)
    assert error_of(answer) == (409, "job_conflict", "job_id")
    assert "client waits" in answer.text
    taken.chunk("Hi", finish_reason="stop")
    taken.finished()
    assert client.result().status_code == 200


# Hold, drain, resume.


def test_a_held_class_starts_nothing_until_it_is_resumed(rig: Rig) -> None:
    rig.load()
    waiting, batch = submit(rig), submit(rig, service_tier="flex")
    held = change(rig, "hold", classes=["interactive"])["data"]
    assert [one["state"] for one in held] == ["hold", "open"]
    assert held[0]["since"] > 0
    assert next_job(rig) is None
    assert next_job(rig, "batch") == batch
    later = submit(rig)
    again = change(rig, "hold")["data"]
    assert again[0]["since"] == held[0]["since"]
    rig.redis.delete(names.wake_key(GEN))
    resumed = change(rig, "resume")["data"]
    assert [one["state"] for one in resumed] == ["open", "open"]
    assert resumed[0]["resumed_at"] >= held[0]["since"]
    assert rig.redis.llen(names.wake_key(GEN)) == 1
    assert [next_job(rig), next_job(rig)] == [waiting, later]


def test_a_drained_class_refuses_new_jobs_and_does_those_that_wait(rig: Rig) -> None:
    rig.load()
    waiting = submit(rig)
    assert change(rig, "drain", classes=["interactive"])["data"][0]["state"] == "drain"
    answer = rig.post(CHAT, HELLO)
    assert error_of(answer)[:2] == (503, "model_draining")
    assert submit(rig, service_tier="flex")
    assert next_job(rig) == waiting
    change(rig, "resume")
    submit(rig)


def test_the_queues_of_all_models_are_listed(rig: Rig) -> None:
    rig.load("0", "fake")
    rig.load("a/b", "fake")
    submit(rig)
    submit(rig, service_tier="flex")
    running = submit(rig)
    rig.redis.lrem(rig.store.queue(GEN).key, 0, running)
    rig.redis.lpush(rig.store.queue(GEN).key, running)
    rig.take().started()
    assert change_of(rig, "fake", "hold")["data"][0]["model_id"] == "0"
    assert change_of(rig, "a/b", "hold")["data"][0]["model_id"] == "a/b"
    listed = rig.http.get("/management/queues").json()["data"]
    facts = [
        (one["model_id"], one["class"], one["waiting"], one["running"], one["state"])
        for one in listed
    ]
    assert facts == [
        ("0", "interactive", 1, 1, "hold"),
        ("0", "batch", 1, 0, "hold"),
        ("a/b", "interactive", 0, 0, "hold"),
        ("a/b", "batch", 0, 0, "hold"),
    ]
    assert listed[0]["queue"] == GEN


def change_of(rig: Rig, model: str, action: str) -> Any:
    answer = rig.post(f"/management/queues/{model}/{action}", None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_running_jobs_are_handed_back_on_request(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    rig.take().started()
    submit(rig, service_tier="flex")
    with rig.redis.pubsub() as commands:
        commands.subscribe(names.rq_command_channel(rig.record(job_id).worker))
        assert commands.get_message(timeout=5)
        assert change(rig, "hold", classes=["batch"], yield_running=True)["yielded"] == 0
        assert change(rig, "hold", yield_running=True)["yielded"] == 1
        message = wait_until(lambda: commands.get_message(timeout=0.1), "the command")
    assert json.loads(message["data"])["job_id"] == job_id


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"classes": ["odd"]}, "classes[0]"),
        ({"classes": []}, "classes"),
        ({"yield_running": 1}, "yield_running"),
    ],
)
def test_a_wrong_hold_is_a_400(rig: Rig, body: Any, param: str) -> None:
    rig.load()
    answer = rig.post("/management/queues/0/hold", body)
    assert error_of(answer) == (400, "invalid_request", param)


def test_a_model_that_is_not_loaded_is_not_held(rig: Rig) -> None:
    rig.load()
    answer = rig.post("/management/queues/nobody/hold", {})
    assert error_of(answer) == (404, "model_not_found", "model")
    assert rig.redis.keys(names.hold_key("*")) == []


# Lists.


def test_jobs_are_filtered_by_class_and_batch(rig: Rig) -> None:
    rig.load()
    plain, flex = submit(rig), submit(rig, service_tier="flex")
    line = submit(rig, service_tier="flex")
    rig.redis.hset(names.job_key(line), mapping={"batch": "batch_1", "line": 4})

    def ids(**query: str) -> list[str]:
        return [one["id"] for one in rig.http.get("/v1/jobs", params=query).json()["data"]]

    assert ids(**{"class": "batch"}) == [line, flex]
    assert ids(**{"class": "interactive"}) == [plain]
    assert ids(batch="batch_1") == [line]
    assert ids(batch="batch_1", status="running") == []
    assert ids(batch="batch_2") == []
    assert ids(key="nobody") == []
    assert rig.http.get("/v1/jobs", params={"class": "odd"}).status_code == 400
    shown = job(rig, line)
    assert (shown["batch"], shown["line"]) == ("batch_1", 4)


def test_a_model_that_is_retired_is_held_no_more(rig: Rig) -> None:
    rig.load()
    change(rig, "hold")
    assert rig.redis.exists(names.hold_key("0"))
    rig.redis.hdel(names.DESIRED_MODELS, "0")
    assert rig.store.retire("0")
    assert not rig.redis.exists(names.hold_key("0"))


def test_a_heartbeat_without_starts_is_read(rig: Rig) -> None:
    desired = rig.load()
    rig.heartbeat(desired, state=WorkerState.LOADING, load_fraction=0.5)
    wait = job(rig, submit(rig))["wait"]
    assert wait == {"phase": "loading", "position": 1, "fraction": 0.5}


def test_jobs_are_filtered_by_the_name_of_a_key(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, api_key="secret", management_key="boss") as rig:
        rig.http.headers["Authorization"] = "Bearer boss"
        rig.load()
        managers = submit(rig)
        answer = rig.post(CHAT, {**HELLO, "background": True}, Authorization="Bearer secret")
        users = answer.json()["id"]

        def ids(key: str) -> list[str]:
            page = rig.http.get("/v1/jobs", params={"key": key}).json()
            return [one["id"] for one in page["data"]]

        assert ids("default") == [users]
        assert [job(rig, one)["key"] for one in (users, managers)] == ["default", "management"]
        listed = rig.http.get("/v1/jobs").json()["data"]
        assert [one["key"] for one in listed if one["id"] == users] == ["default"]
        assert managers in ids("management")
        assert ids(rig.record(users).caller) == [users]
        held = change(rig, "hold")["data"][0]
        assert (held["state"], held["by"]) == ("hold", "management")
        rig.http.headers["Authorization"] = "Bearer secret"
        assert ids("management") == []
        for method, path in (
            ("POST", f"/v1/jobs/{managers}/retry"),
            ("POST", f"/v1/jobs/{managers}/requeue"),
            ("PATCH", f"/v1/jobs/{managers}"),
        ):
            answer = rig.http.request(method, path, json={"priority": 1})
            assert error_of(answer) == (404, "job_not_found", "job_id")
        for action in ("hold", "drain", "resume"):
            answer = rig.post(f"/management/queues/0/{action}", {})
            assert error_of(answer)[:2] == (403, "management_key_required")
        assert rig.http.get("/management/queues").status_code == 403


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
        ("/api/embed", {"input": "x"}),
    ],
)
def test_vectors_come_in_time_or_not_at_all(rig: Rig, path: str, body: Any) -> None:
    rig.load()
    answer = rig.post(path, {**body, "deadline_s": 0.2})
    assert answer.status_code == 503
    assert "job_timeout" in answer.text
    assert rig.record(answer.headers["X-Job-Id"]).error_code == "job_timeout"
    answer = rig.post(path, {**body, "deadline_s": -1})
    assert answer.status_code == 400
    assert "deadline_s" in answer.text
