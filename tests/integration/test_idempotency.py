"""``Idempotency-Key``: equal requests make one thing, over several API processes."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.storage import names, object_names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, running_api

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
CHATS = "/v1/chat/completions"


@pytest.fixture
def other(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A second API process over the same Redis."""
    with running_api(tmp_path, redis_url) as running:
        yield running


def keyed(key: str = "k") -> dict[str, str]:
    return {"Idempotency_Key": key}


def is_replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


def num_jobs(rig: Rig) -> int:
    return int(rig.redis.zcard(names.JOB_INDEX))


# Jobs.


def test_equal_requests_at_once_make_one_job_with_equal_answers(rig: Rig, other: Rig) -> None:
    rig.load()
    with ThreadPoolExecutor(50) as threads:
        answers = [
            threads.submit((rig, other)[number % 2].post, CHATS, CHAT, **keyed())
            for number in range(50)
        ]
        taken = rig.take()
        taken.started()
        taken.chunk("hello")
        taken.chunk(" there", finish_reason="stop")
        taken.finished()
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.content for answer in found}) == 1
    assert num_jobs(rig) == 1
    assert {answer.headers["x-job-id"] for answer in found} == {taken.job_id}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHATS, CHAT),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi", "model": "fake"}),
        ("/v1/messages", {**CHAT, "max_tokens": 5, "model": "fake"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_repeated_to_the_byte(
    rig: Rig, other: Rig, path: str, body: dict[str, Any], stream: bool
) -> None:
    rig.load()
    body = {**body, "stream": stream}
    first = rig.post_soon(path, body, **keyed())
    rig.take().answer("hello", " there")
    answer = first.result()
    assert answer.status_code == 200, answer.text
    assert not is_replayed(answer)
    for again in (other.post(path, body, **keyed()), rig.post(path, body, **keyed())):
        assert again.content == answer.content
        assert is_replayed(again)
        assert again.headers["x-job-id"] == answer.headers["x-job-id"]
        assert again.headers["content-type"] == answer.headers["content-type"]
    assert num_jobs(rig) == 1


def test_embeddings_and_rankings_are_repeated(rig: Rig) -> None:
    rig.load()
    for path, body in (
        ("/v1/embeddings", {"input": ["a"], "model": "fake"}),
        ("/v1/rerank", {"query": "a", "documents": ["b", "c"], "model": "fake"}),
    ):
        first = rig.post_soon(path, body, **keyed(path))
        taken = rig.take_control()
        taken.started()
        for index in range(1 if "input" in body else 3):
            taken.chunk("", choice=index, embedding=struct.pack("<2f", 1.0, 0.0))
        taken.finished(completion_tokens=0)
        rig.redis.lrem(rig.store.queue(names.control_queue("0")).key, 0, taken.job_id)
        answer = first.result()
        assert answer.status_code == 200, answer.text
        again = rig.post(path, body, **keyed(path))
        assert (again.content, is_replayed(again)) == (answer.content, True)


def test_a_second_stream_has_the_first_events_too(rig: Rig, other: Rig) -> None:
    rig.load()
    body = {**CHAT, "stream": True}
    first = rig.post_soon(CHATS, body, **keyed())
    taken = rig.take()
    taken.started()
    taken.chunk("hello")
    with other.http.stream("POST", CHATS, json=body, headers={"Idempotency-Key": "k"}) as second:
        parts = second.iter_bytes()
        seen = next(parts)
        while b"hello" not in seen:
            seen += next(parts)
        taken.chunk(" there", finish_reason="stop")
        taken.finished()
        seen += b"".join(parts)
    assert seen == first.result().content


def test_background_jobs_are_accepted_once(rig: Rig, other: Rig) -> None:
    rig.load()
    body = {**CHAT, "background": True}
    answers = [one.post(CHATS, body, **keyed()) for one in (rig, other, rig)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [is_replayed(answer) for answer in answers] == [False, True, True]
    response = {"input": "hi", "model": "fake", "background": True}
    ids = {one.post("/v1/responses", response, **keyed("r")).json()["id"] for one in (rig, other)}
    assert len(ids) == 1
    assert num_jobs(rig) == 2


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHATS, {**CHAT, "temperature": 0.5}, {}),
        (CHATS, {**CHAT, "stream": True}, {}),
        ("/v1/completions", CHAT, {}),
        (CHATS, CHAT, {"X_Model_Id": "1"}),
        (CHATS, CHAT, {"Prefer": "respond-async"}),
    ],
)
def test_another_request_with_the_key_is_refused(
    rig: Rig, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    rig.load()
    rig.load("1")
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    taken = rig.take()
    refused = rig.post(path, body, **keyed(), **headers)
    assert refused.status_code == 422
    check_error_shape(refused.json())
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    taken.answer("hello")
    assert answer.result().status_code == 200
    assert rig.post(path, body, **keyed(), **headers).status_code == 422


@pytest.mark.parametrize("key", ["", "x" * 256, "k\xfcy"])
def test_a_bad_key_is_refused(rig: Rig, key: str) -> None:
    rig.load()
    answer = rig.http.post(CHATS, json=CHAT, headers={"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_idempotency_key"
    both = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert rig.http.post(CHATS, json=CHAT, headers=both).status_code == 400


def test_the_longest_key_is_taken(rig: Rig) -> None:
    rig.load()
    answer = rig.post_soon(CHATS, CHAT, **keyed("x" * 255))
    rig.take().answer("hello")
    assert answer.result().status_code == 200


def test_a_refused_request_leaves_its_key_free(rig: Rig) -> None:
    rig.load()
    assert rig.post(CHATS, {**CHAT, "temperature": 99}, **keyed()).status_code == 400
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    rig.take().answer("hello")
    assert answer.result().status_code == 200


def test_a_full_queue_is_not_remembered(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_jobs=1) as rig:
        rig.load()
        first = rig.chat_soon()
        taken = rig.take()
        assert rig.post(CHATS, CHAT, **keyed()).status_code == 429
        taken.answer("hello")
        first.result()
        rig.redis.delete(rig.store.queue(names.generation_queue("0")).key)
        answer = rig.post_soon(CHATS, CHAT, **keyed())
        rig.take().answer("hello")
        assert answer.result().status_code == 200


def test_a_failure_of_the_server_is_not_remembered_and_one_of_the_request_is(rig: Rig) -> None:
    rig.load()
    ids = []
    for code, status in (("not_ready", 503), ("grammar_failed", 400)):
        answer = rig.post_soon(CHATS, CHAT, **keyed())
        taken = rig.take()
        taken.started()
        taken.failed(code, "no")
        rig.redis.delete(rig.store.queue(names.generation_queue("0")).key)
        assert answer.result().status_code == status
        ids.append(taken.job_id)
    assert ids[0] != ids[1]
    again = rig.post(CHATS, CHAT, **keyed())
    assert (again.status_code, is_replayed(again)) == (400, True)


def test_a_cancelled_job_is_not_remembered(rig: Rig) -> None:
    rig.load()
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    taken = rig.take()
    rig.http.delete(f"/v1/jobs/{taken.job_id}")
    taken.cancelled()
    assert answer.result().status_code == 410
    rig.redis.delete(rig.store.queue(names.generation_queue("0")).key)
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    rig.take().answer("hello")
    assert answer.result().status_code == 200


def test_the_job_of_a_request_that_died_before_its_submission_is_submitted(rig: Rig) -> None:
    rig.load()
    assert rig.post(CHATS, {**CHAT, "temperature": 99}, **keyed()).status_code == 400
    (key,) = rig.redis.scan_iter(object_names.idempotency_key("*", "*"))
    rig.redis.hset(key, mapping={"state": "open", "print": "", "job": "chatcmpl-none"})
    suffix = rig.redis.hget(key, "suffix").decode()
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    taken = rig.take()
    assert taken.job_id == f"chatcmpl-{suffix}"
    taken.answer("hello")
    assert answer.result().status_code == 200


def test_an_expired_job_is_made_again(rig: Rig) -> None:
    rig.load()
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    taken = rig.take()
    taken.answer("hello")
    answer.result()
    key = names.generation_queue("0")
    rig.redis.delete(
        names.job_key(taken.job_id), names.log_key(taken.job_id), names.request_key(taken.job_id)
    )
    rig.redis.delete(rig.store.queue(key).key)
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    rig.take().answer("other")
    assert "other" in answer.result().text


def test_a_key_lives_as_long_as_the_log_of_its_job(rig: Rig) -> None:
    rig.load()
    answer = rig.post_soon(CHATS, CHAT, **keyed())
    rig.take().answer("hello")
    answer.result()
    (key,) = rig.redis.scan_iter(object_names.idempotency_key("*", "*"))
    wait_until(lambda: rig.redis.ttl(key) <= rig.settings.log_ttl_s, "a shorter expiry")


def test_callers_have_keys_of_their_own(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, api_key="one", management_key="two") as rig:
        rig.load()
        ids = set()
        for key in ("one", "two"):
            body = {**CHAT, "background": True}
            answer = rig.post(CHATS, body, Authorization=f"Bearer {key}", **keyed())
            assert not is_replayed(answer)
            ids.add(answer.json()["id"])
        assert len(ids) == 2
        unknown = rig.post(CHATS, CHAT, Authorization="Bearer no", **keyed())
        assert unknown.status_code == 401


# Connections that close.


def keyed_socket(rig: Rig, body: dict[str, Any]) -> Any:
    data = json.dumps(body, separators=(",", ":")).encode()  # as httpx writes it
    head = (
        f"POST {CHATS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: k\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    client = rig.connect()
    client.sendall(head.encode() + data)
    return client


def attached(rig: Rig, job_id: str, num: int) -> None:
    key = object_names.readers_key(job_id)
    wait_until(lambda: rig.redis.scard(key) == num, f"{num} readers of the job")


def test_a_job_outlives_the_connection_that_began_it(rig: Rig, other: Rig) -> None:
    rig.load()
    first = keyed_socket(rig, CHAT)
    taken = rig.take()
    taken.started()
    attached(rig, taken.job_id, 1)
    first.close()
    attached(rig, taken.job_id, 0)
    assert rig.record(taken.job_id).cancel == ""
    answer: Future[httpx.Response] = other.post_soon(CHATS, CHAT, **keyed())
    attached(rig, taken.job_id, 1)
    taken.chunk("hello", finish_reason="stop")
    taken.finished()
    assert answer.result().status_code == 200
    assert is_replayed(answer.result())


def test_an_unread_job_is_cancelled_after_a_while(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, orphan_s=5) as rig:
        rig.load()
        first = keyed_socket(rig, CHAT)
        job_id = wait_until(rig.waiting_ids, "a job")[0]
        attached(rig, job_id, 1)
        begun = time.monotonic()
        first.close()
        wait_until(lambda: rig.record(job_id).status == "cancelled", "the end of the job")
        assert time.monotonic() - begun > 4


def test_a_job_outlives_an_api_that_is_stopped(tmp_path: Path, redis_url: str) -> None:
    """Its heartbeat runs out by itself: until then no supervisor ends its jobs."""
    with running_api(tmp_path, redis_url) as first:
        first.load()
        client = keyed_socket(first, CHAT)
        taken = first.take()
        taken.started()
        attached(first, taken.job_id, 1)
    client.close()
    with running_api(tmp_path, redis_url) as second:
        record = second.record(taken.job_id)
        assert record.cancel == ""
        assert second.redis.exists(names.api_key(record.owner))
        assert record.owner.encode() in second.redis.smembers(names.APIS)
        answer = second.post_soon(CHATS, CHAT, **keyed())
        attached(second, taken.job_id, 1)
        writer = second.store.writer
        taken.writer = writer
        taken.chunk("hello", finish_reason="stop")
        taken.finished()
        assert answer.result().status_code == 200


def test_no_limit_concerns_an_answer_that_is_repeated(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, max_jobs=1) as rig:
        rig.load()
        first = rig.post_soon(CHATS, CHAT, **keyed())
        rig.take().answer("hello")
        answer = first.result()
        rig.redis.delete(rig.store.queue(names.generation_queue("0")).key)
        running = rig.chat_soon()
        other = rig.take()
        assert rig.post(CHATS, CHAT, **keyed("other")).status_code == 429
        assert rig.post(CHATS, CHAT, **keyed()).content == answer.content
        other.answer("hello")
        running.result()


# Requests that make no job.


def test_an_endpoint_is_made_once(rig: Rig, other: Rig) -> None:
    body = {"name": "a", "url": "https://example.com/", "event_types": ["batch.failed"]}
    with ThreadPoolExecutor(20) as threads:
        answers = [
            threads.submit((rig, other)[number % 2].post, "/v1/webhook_endpoints", body, **keyed())
            for number in range(20)
        ]
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.content for answer in found}) == 1
    assert sum(map(is_replayed, found)) == 19
    assert len(rig.http.get("/v1/webhook_endpoints").json()["data"]) == 1
    changed = rig.post("/v1/webhook_endpoints", {**body, "name": "b"}, **keyed())
    assert changed.status_code == 422
    assert rig.post("/v1/webhook_endpoints", {**body, "url": "no"}, **keyed("n")).status_code == 400
    assert rig.post("/v1/webhook_endpoints", body, **keyed("n")).status_code == 200


def test_a_request_that_died_at_work_is_made_again(rig: Rig) -> None:
    body = {"name": "a", "url": "https://example.com/", "event_types": ["batch.failed"]}
    rig.post("/v1/webhook_endpoints", body, **keyed())
    (key,) = rig.redis.scan_iter(object_names.idempotency_key("*", "*"))
    rig.redis.hset(key, mapping={"state": "open", "until": 1, "print": ""})
    again = rig.post("/v1/webhook_endpoints", body, **keyed())
    assert (again.status_code, is_replayed(again)) == (200, False)


def test_a_file_is_stored_once(rig: Rig, other: Rig) -> None:
    """Clients draw the boundary of the form anew for each request."""
    headers = {"Idempotency-Key": "f"}

    def send(api: Rig, text: str) -> httpx.Response:
        files = {"file": ("a.jsonl", text.encode()), "purpose": (None, "batch")}
        return api.http.post("/v1/files", files=files, headers=headers)

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(send, (rig, other)[n % 2], "{}\n" * 5000) for n in range(8)]
        found = [answer.result() for answer in answers]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.content for answer in found}) == 1
    assert sum(map(is_replayed, found)) == 7
    assert len(rig.http.get("/v1/files").json()["data"]) == 1
    assert send(rig, "{}\n" * 5001).status_code == 422


def test_an_upload_a_part_and_its_end_are_made_once(rig: Rig) -> None:
    body = {"bytes": 3, "filename": "a.jsonl", "mime_type": "text/plain", "purpose": "batch"}
    uploads = [rig.post("/v1/uploads", body, **keyed()).json()["id"] for _ in range(2)]
    assert uploads[0] == uploads[1]
    path = f"/v1/uploads/{uploads[0]}"
    headers = {"Idempotency-Key": "part"}
    parts = [
        rig.http.post(f"{path}/parts", files={"data": b"{}\n"}, headers=headers).json()["id"]
        for _ in range(2)
    ]
    assert parts[0] == parts[1]
    ends = [rig.post(f"{path}/complete", {"part_ids": parts[:1]}, **keyed("end")) for _ in range(2)]
    assert [end.status_code for end in ends] == [200, 200]
    assert ends[0].content == ends[1].content


def test_a_retry_of_a_job_is_made_once(rig: Rig) -> None:
    rig.load()
    job_id = rig.post(CHATS, {**CHAT, "background": True}).json()["id"]
    rig.take().failed("grammar_failed", "no")
    answers = [rig.post(f"/v1/jobs/{job_id}/retry", None, **keyed()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["location"] == answers[0].headers["location"]
    assert num_jobs(rig) == 2


def test_other_requests_ignore_the_header(rig: Rig) -> None:
    assert rig.http.get("/v1/models", headers={"Idempotency-Key": ""}).status_code == 200
    assert rig.post("/v1/tokenize", {}, **keyed("")).status_code != 422
    assert list(rig.redis.scan_iter(object_names.idempotency_key("*", "*"))) == []
