"""Batches through OpenAI's client: what comes out, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import ConflictError

from jobs.batches.records import BatchRecord
from jobs.batches.store import BatchStore, new_batch_id
from jobs.settings import Settings
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis, connect
from tests.helpers.batches import CHAT, Batches, batch_server, chat_line, jsonl, line, told
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def batches() -> Iterator[Batches]:
    server = batch_server(MGS_SLOTS="4")
    try:
        yield Batches(server)
    finally:
        survivors = server.stop()
    assert survivors == []


def _codes(errors: list[dict[str, Any]]) -> set[str]:
    return {one["error"]["code"] for one in errors}


def test_each_line_has_its_answer_in_the_order_of_the_input(batches: Batches) -> None:
    batch = batches.run((chat_line(n) for n in range(30)), metadata={"of": "a test"})
    assert batch.status == "completed"
    assert batch.metadata == {"of": "a test"}
    assert (batch.request_counts.completed, batch.request_counts.failed) == (30, 0)
    assert batch.error_file_id is None
    output = batches.output(batch)
    assert [one["custom_id"] for one in output] == [f"r{n}" for n in range(30)]
    assert all(one["response"]["body"]["object"] == "chat.completion" for one in output)
    tokens = sum(one["response"]["body"]["usage"]["completion_tokens"] for one in output)
    assert batch.usage.output_tokens == tokens


def test_pages_of_batches_continue_after_an_id(batches: Batches) -> None:
    ids = [batches.run([chat_line(1)]).id for _ in range(3)]
    listed = [one.id for one in batches.client.batches.list(limit=2)]
    assert [one for one in listed if one in ids] == ids[::-1]


def test_a_wrong_line_is_in_the_error_file_with_the_routes_answer(batches: Batches) -> None:
    lines = [chat_line(0), chat_line(1, temperature=9), chat_line(2, stream=True), chat_line(3)]
    batch = batches.run(lines)
    assert batch.status == "completed"
    assert [one["custom_id"] for one in batches.output(batch)] == ["r0", "r3"]
    wrong, streamed = batches.errors(batch)
    assert (wrong["custom_id"], wrong["error"]) == ("r1", None)
    assert wrong["response"]["status_code"] == 400
    assert wrong["response"]["body"]["error"]["param"] == "temperature"
    assert streamed["response"]["body"]["error"]["param"] == "stream"


def test_without_a_success_there_is_no_output_file(batches: Batches) -> None:
    batch = batches.run([chat_line(0, temperature=9)])
    assert batch.output_file_id is None
    assert batch.request_counts.failed == 1


def test_a_wrong_input_fails_with_the_lines_at_fault(batches: Batches) -> None:
    lines = [chat_line(0), chat_line(0), line("r2", "/v1/embeddings", {"model": "fake"})]
    batch = batches.run([*lines, chat_line(3, model="other")])
    assert batch.status == "failed"
    found = [(one.code, one.line) for one in batch.errors.data]
    assert found == [("duplicate_custom_id", 2), ("url_mismatch", 3), ("model_mismatch", 4)]


def test_a_model_that_does_not_exist_fails_the_batch(batches: Batches) -> None:
    batch = batches.run([chat_line(0, model="nothing")])
    assert (batch.status, batch.errors.data[0].code) == ("failed", "model_not_found")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"prompt": "hello", "max_tokens": 3}),
        ("/v1/responses", {"input": "hello", "max_output_tokens": 16}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
    ],
)
def test_other_routes_answer_lines_too(batches: Batches, endpoint: str, body: Any) -> None:
    lines = [line(f"r{n}", endpoint, {"model": "fake", **body}) for n in range(4)]
    batch = batches.run(lines, endpoint)
    assert [one["custom_id"] for one in batches.output(batch)] == [f"r{n}" for n in range(4)]
    assert batch.usage.input_tokens > 0


def test_a_cancelled_batch_keeps_what_was_answered(batches: Batches) -> None:
    created = batches.create(jsonl(chat_line(n, "fake-20ms", max_tokens=20) for n in range(100)))
    batches.wait_for(created.id, 5)
    assert batches.client.batches.cancel(created.id).status in ("cancelling", "cancelled")
    batch = batches.end_of(created.id)
    output, errors = batches.output(batch), batches.errors(batch)
    assert batch.status == "cancelled"
    assert len(output) >= 5
    assert len(output) + len(errors) == batch.request_counts.total == 100
    assert _codes(errors) == {"batch_cancelled"}
    assert batches.client.batches.cancel(created.id).status == "cancelled"
    done = batches.run([chat_line(0)])
    with pytest.raises(ConflictError, match="completed"):
        batches.client.batches.cancel(done.id)


def test_an_expired_batch_keeps_what_was_answered(batches: Batches) -> None:
    server = batches.server
    settings = Settings(REDIS_URL=server.redis_url, state_dir=Path(server.env["MGS_STATE_DIR"]))
    store = BatchStore(settings, connect(server.redis_url))
    data = jsonl(chat_line(n, "fake-20ms", max_tokens=20) for n in range(200))
    now = int(time.time())
    record = BatchRecord(id=new_batch_id(), endpoint=CHAT, created_at=now, expires_at=now + 8)
    store.create(record, lambda folder: (folder / "input.jsonl").write_bytes(data))
    batch = batches.end_of(record.id)
    output, errors = batches.output(batch), batches.errors(batch)
    assert (batch.status, len(output) + len(errors)) == ("expired", 200)
    assert _codes(errors) == {"batch_expired"}
    assert output


def test_a_retry_has_the_failed_lines_only(batches: Batches) -> None:
    lines = [chat_line(0), chat_line(1, temperature=9), chat_line(2)]
    old = batches.run(lines)
    answer = httpx.post(f"{batches.server.url}/v1/batches/{old.id}/retry", timeout=20)
    assert answer.json()["retry_of"] == old.id
    batch = batches.end_of(answer.json()["id"])
    assert [one["custom_id"] for one in batches.errors(batch)] == ["r1"]
    assert batch.request_counts.total == 1
    again = httpx.post(
        f"{batches.server.url}/v1/batches/{batches.run([chat_line(0)]).id}/retry", timeout=20
    )
    assert (again.status_code, again.json()["error"]["code"]) == (409, "batch_not_changeable")


def test_the_input_may_be_deleted_meanwhile(batches: Batches) -> None:
    created = batches.create(jsonl(chat_line(n, "fake-5ms") for n in range(60)))
    batches.client.files.delete(created.input_file_id)
    assert batches.end_of(created.id).request_counts.completed == 60


def test_a_batch_waits_for_a_model_that_was_unloaded(batches: Batches) -> None:
    server = batches.server
    model = "fake-10ms"
    created = batches.create(jsonl(chat_line(n, model, max_tokens=20) for n in range(80)))
    batches.wait_for(created.id, 3)
    server.unload(model)

    def waiting() -> Any:
        found = batches.client.batches.retrieve(created.id)
        return (found.model_extra or {}).get("waiting")

    assert wait_until(waiting, "the batch waits")["code"] == "model_unloaded"
    num_ended = batches.num_ended(created.id)
    assert model not in server.processes_by_id()
    server.load(model, model)
    batch = batches.end_of(created.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 80)
    assert num_ended < 80
    assert batch.model_extra["waiting"] is None
    with connect(server.redis_url) as redis:
        assert redis.hlen(object_names.batch_runs_key(batch.id)) > 0  # those under way ran again
        wait_until(lambda: not _keys_of_lines(redis, batch.id), "the jobs are forgotten")


def test_a_batch_on_hold_says_so_and_goes_on(batches: Batches) -> None:
    url = f"{batches.server.url}/management/queues/fake"
    batches.run([chat_line(0)])
    assert httpx.post(f"{url}/hold", json={"classes": ["batch"]}, timeout=20).status_code == 200
    created = batches.create(jsonl(chat_line(n) for n in range(20)))

    def waiting() -> Any:
        found = batches.client.batches.retrieve(created.id)
        return (found.model_extra or {}).get("waiting")

    assert wait_until(waiting, "the batch waits")["code"] == "on_hold"
    assert batches.num_ended(created.id) == 0
    assert httpx.post(f"{url}/resume", timeout=20).status_code == 200
    batch = batches.end_of(created.id)
    assert (batch.request_counts.completed, batch.model_extra["waiting"]) == (20, None)


def _out_journal(batches: Batches, batch_id: str) -> Path:
    return Path(batches.server.env["MGS_STATE_DIR"]) / "files" / "batches" / batch_id / "out.jsonl"


def _keys_of_lines(redis: SyncRedis, batch_id: str) -> list[bytes]:
    """Keys of lines' jobs. Of an execution that has just ended, a heartbeat of its worker may write
    a key again; that expires within half a minute."""
    keys = redis.scan_iter(f"*{batch_id.rpartition('_')[2]}-*")
    return [key for key in keys if not key.startswith(b"rq:execution:")]


def test_a_killed_runner_is_followed_by_another_and_a_torn_line_is_cut(batches: Batches) -> None:
    server = batches.server
    lines = [chat_line(n, "fake-5ms", max_tokens=12) for n in range(120)]
    undisturbed = [told(one) for one in batches.output(batches.run(lines))]
    created = batches.create(jsonl(lines))
    batches.wait_for(created.id, 20)
    runner = server.processes["batches"]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    with _out_journal(batches, created.id).open("ab") as journal:
        journal.write(b'119 S {"id":"batch_req_half')
    server.start("batches", "api.batch_runner")
    batch = batches.end_of(created.id)
    assert [told(one) for one in batches.output(batch)] == undisturbed
    with connect(server.redis_url) as redis:
        wait_until(lambda: not _keys_of_lines(redis, batch.id), "the jobs are forgotten")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_a_full_disk_pauses_the_batch(batches: Batches) -> None:
    runner = batches.server.processes["batches"].pid
    before = resource.prlimit(runner, resource.RLIMIT_FSIZE)
    lines = [chat_line(n, "fake-2ms", max_tokens=12) for n in range(150)]
    created = batches.create(jsonl(lines))
    batches.wait_for(created.id, 10)
    try:
        size = os.stat(_out_journal(batches, created.id)).st_size
        resource.prlimit(runner, resource.RLIMIT_FSIZE, (size + 100, before[1]))

        def waiting() -> Any:
            found = batches.client.batches.retrieve(created.id)
            return (found.model_extra or {}).get("waiting")

        assert wait_until(waiting, "the batch is paused")["code"] == "disk_full"
    finally:
        resource.prlimit(runner, resource.RLIMIT_FSIZE, before)
    batch = batches.end_of(created.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 150)
    ids = [one["custom_id"] for one in batches.output(batch)]
    assert ids == [f"r{n}" for n in range(150)]


def test_a_loss_of_all_data_in_redis_loses_no_batch(batches: Batches) -> None:
    done = batches.run([chat_line(0)])
    created = batches.create(jsonl(chat_line(n, "fake-5ms", max_tokens=12) for n in range(80)))
    batches.wait_for(created.id, 5)
    redis = connect(batches.server.redis_url)
    redis.flushall()
    batch = batches.end_of(created.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 80)
    assert done.id in {one.id for one in batches.client.batches.list()}
    assert redis.sismember(object_names.ACTIVE_BATCHES, batch.id) == 0
    redis.close()


def test_programs_that_split_lines_by_unicode_read_each_line_whole(batches: Batches) -> None:
    text = "a\u2028b\u2029c\u0085d"
    body = {"model": "fake", "prompt": text, "max_tokens": 2, "echo": True}
    batch = batches.run([line("odd", "/v1/completions", body)], "/v1/completions")
    (answer,) = batches.client.files.content(batch.output_file_id).text.splitlines()
    assert json.loads(answer)["response"]["body"]["choices"][0]["text"].startswith(text)
