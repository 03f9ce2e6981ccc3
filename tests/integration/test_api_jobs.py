"""/v1/jobs: background jobs, pages, cancel, and events with replay."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract.records import JobStatus
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, Taken, check_error_shape, read_until

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


def submit(rig: Rig, **fields: Any) -> str:
    answer = rig.post(CHAT, {**HELLO, "background": True, **fields})
    assert answer.status_code == 202
    return str(answer.json()["id"])


def run(rig: Rig) -> Taken:
    job_id = submit(rig)
    job = rig.take()
    assert job.job_id == job_id
    job.answer("Hel", "lo")
    return job


def events_of(rig: Rig, job_id: str, **headers: str) -> list[dict[str, str]]:
    """The events of an SSE answer as dicts of their fields."""
    answer = rig.http.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert answer.status_code == 200, answer.text
    blocks = [block for block in answer.text.split("\n\n") if block.strip()]
    return [
        dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        for block in blocks
    ]


@pytest.mark.parametrize("how", ["body", "header"])
def test_a_background_job_is_accepted_and_keeps_its_result(rig: Rig, how: str) -> None:
    rig.load()
    if how == "body":
        answer = rig.post(CHAT, {**HELLO, "background": True})
    else:
        answer = rig.post(CHAT, HELLO, Prefer="wait=5, respond-async; x=1")
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{body['id']}"
    assert (body["object"], body["status"]) == ("job", "queued")
    assert rig.http.get(answer.headers["Location"]).json()["status"] == "queued"
    rig.take().answer("Hel", "lo")
    job = rig.http.get(answer.headers["Location"]).json()
    assert (job["status"], job["background"], job["error"]) == ("finished", True, None)
    assert job["result"]["id"] == body["id"]
    assert job["result"]["choices"][0]["message"]["content"] == "Hello"


def test_a_failed_job_shows_its_error(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    rig.take().failed("engine_error", "it broke")
    job = rig.http.get(f"/v1/jobs/{job_id}").json()
    assert job["error"] == {"code": "engine_error", "message": "it broke", "param": None}
    assert job["result"] is None


def test_jobs_are_listed_in_pages_newest_first(rig: Rig) -> None:
    rig.load()
    ids = [submit(rig) for _ in range(5)]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = rig.http.get("/v1/jobs", params=query).json()
        found += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        query["cursor"] = page["next_cursor"]
    assert found == ids[::-1]


def test_jobs_are_filtered_by_model_and_status(rig: Rig) -> None:
    rig.load("0", "fake")
    rig.load("1", "fake-20ms")
    done = run(rig).job_id
    other = rig.post(CHAT, {**HELLO, "background": True}, X_Model_Id="1").json()["id"]

    def ids(**query: str) -> list[str]:
        return [job["id"] for job in rig.http.get("/v1/jobs", params=query).json()["data"]]

    assert ids(model="1") == ids(model="fake-20ms") == ids(status="queued") == [other]
    assert ids(model="fake", status="finished") == [done]
    assert ids(model="nobody") == []


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=x", "cursor=nan", "status=odd"])
def test_a_wrong_filter_is_a_400(rig: Rig, query: str) -> None:
    answer = rig.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == query.split("=")[0]


def test_a_queued_job_is_cancelled(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    job = rig.http.delete(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["error"]["code"]) == ("cancelled", "job_cancelled")
    assert rig.waiting_ids() == []
    assert rig.http.delete(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_running_job_is_cancelled_for_its_waiting_client_too(rig: Rig) -> None:
    rig.load()
    client = rig.chat_soon(stream=True)
    job = rig.take()
    job.started()
    answer = rig._threads.submit(rig.http.delete, f"/v1/jobs/{job.job_id}")
    wait_until(lambda: rig.record(job.job_id).cancel, "the wish is on record")
    job.cancelled()
    assert answer.result().json()["status"] == "cancelled"
    assert "job_cancelled" in client.result().text
    assert "[DONE]" not in client.result().text


def test_a_finished_job_stays_finished(rig: Rig) -> None:
    rig.load()
    job = run(rig)
    assert rig.http.delete(f"/v1/jobs/{job.job_id}").json()["status"] == "finished"
    assert rig.record(job.job_id).status is JobStatus.FINISHED


@pytest.mark.parametrize("job_id", ["none", "..", "a" * 500, "mgs:desired"])
def test_an_unknown_job_is_a_404(rig: Rig, job_id: str) -> None:
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/events"):
        answer = rig.http.get(path)
        assert answer.status_code == 404
        check_error_shape(answer.json())


def test_events_are_replayed_with_ids(rig: Rig) -> None:
    rig.load()
    job = run(rig)
    events = events_of(rig, job.job_id)
    assert [event["event"] for event in events] == ["started", "chunk", "chunk", "finished"]
    assert [event["id"] for event in events] == ["1-1", "1-2", "1-3", "1-4"]


@pytest.mark.parametrize("how", ["header", "query"])
def test_events_are_resumed_after_the_last_one_seen(rig: Rig, how: str) -> None:
    rig.load()
    job_id = run(rig).job_id
    if how == "header":
        events = events_of(rig, job_id, **{"Last-Event-ID": "1-2"})
        assert [event["id"] for event in events] == ["1-3", "1-4"]
    else:
        text = rig.http.get(f"/v1/jobs/{job_id}/events?after=1-2").text
        assert text.count("\nevent: ") == 2


def test_nothing_is_left_after_the_last_event(rig: Rig) -> None:
    rig.load()
    job_id = run(rig).job_id
    answer = rig.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "1-4"})
    assert answer.status_code == 204


@pytest.mark.parametrize("event_id", ["9-9", "x", "1", "1-2-3", "-1-2", "1-99999999999999999999"])
def test_an_event_id_that_is_none_of_the_job_is_a_400(rig: Rig, event_id: str) -> None:
    rig.load()
    job_id = run(rig).job_id
    answer = rig.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": event_id})
    assert answer.status_code == 400


def test_events_go_on_live_and_a_reader_that_leaves_changes_nothing(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    job = rig.take()
    job.started()
    path = f"/v1/jobs/{job_id}/events"
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    stays, leaves = rig.connect(), rig.connect()
    for reader in (stays, leaves):
        reader.sendall(request)
        read_until(reader, b"event: started")
    leaves.close()
    job.chunk("live", finish_reason="stop")
    job.finished()
    assert b"live" in read_until(stays, b"event: finished")
    stays.close()
    assert rig.record(job_id).cancel == ""
    wait_until(lambda: not rig.redis.pubsub_channels("mgs:evt:*"), "no subscription is left")


def test_a_long_log_is_replayed_whole(rig: Rig) -> None:
    rig.load()
    job_id = submit(rig)
    job = rig.take()
    job.started()
    for number in range(600):
        job.chunk(f"<{number}>")
    job.chunk("", finish_reason="stop")
    job.finished()
    events = events_of(rig, job_id)
    assert [event["id"] for event in events] == [f"1-{seq}" for seq in range(1, 604)]
    text = rig.http.get(f"/v1/jobs/{job_id}").json()["result"]["choices"][0]["message"]["content"]
    assert text == "".join(f"<{number}>" for number in range(600))
