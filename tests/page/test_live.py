"""GET /v1/live: one reader for all listeners, a snapshot and then what changes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.live.rates import Rates
from api.live.schema import LiveModel, LiveQueue, LiveState, difference
from jobs.contract.records import RunningJob, WorkerState, WorkerStatus
from jobs.storage import names
from jobs.storage.totals import Sum
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

_Frame = tuple[str, dict[str, Any]]


@contextmanager
def _listening(rig: Rig) -> Iterator[Iterator[_Frame]]:
    with httpx.stream("GET", f"{rig.url}/v1/live", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _frames(answer)


def _frames(answer: httpx.Response) -> Iterator[_Frame]:
    event = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def _next(frames: Iterator[_Frame], part: str) -> dict[str, Any]:
    """The next frame that says something of ``part``."""
    return next(data for _, data in frames if part in data)


def test_a_listener_gets_a_snapshot_then_only_changes(rig: Rig) -> None:
    with _listening(rig) as frames:
        event, snapshot = next(frames)
        assert event == "snapshot"
        assert snapshot["models"]["0"]["name"] == "fake"
        assert snapshot["queues"] == {"0": {"waiting": 0, "order": []}}
        assert snapshot["supervisors"] == 1
        rig.load("7", "fake-20ms")
        added = _next(frames, "models")
        assert added["models"]["7"]["name"] == "fake-20ms"
        assert "0" not in added["models"]


def test_a_job_is_followed_from_its_place_to_its_end(rig: Rig) -> None:
    with _listening(rig) as frames:
        next(frames)
        rig.post("/v1/chat/completions", _chat("hello"), Prefer="respond-async")
        put = _next(frames, "jobs")
        (job_id,) = put["jobs"]
        job = put["jobs"][job_id]
        assert (job["model"], job["api"], job["task"], job["prompt_chars"]) == (
            "0", "chat", "generate", 5,
        )  # fmt: skip
        assert put["queues"]["0"] == {"waiting": 1, "drop": 0, "add": [job_id]}
        taken = rig.take()
        running = RunningJob(job_id, "decode", 3, 3, 40, 1)
        desired = rig.desired_models.get("0")
        rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, job_id)
        rig.heartbeat(desired, running=1, jobs=[running], beat_at=1.0)
        changed = next(d for _, d in frames if d.get("jobs", {}).get(job_id, {}).get("phase"))
        assert changed["jobs"][job_id]["generated"] == 40
        rig.heartbeat(desired, beat_at=2.0)
        taken.answer("x")
        assert _next(frames, "jobs_gone")["jobs_gone"] == [job_id]


def test_many_listeners_share_one_reader_and_nobody_costs_nothing(rig: Rig) -> None:
    with _listening(rig) as one, _listening(rig) as two:
        next(one)
        next(two)
        rig.load("7", "fake-20ms")
        assert _next(one, "models")["t"] == _next(two, "models")["t"]
    wait_until(lambda: _is_settled(rig), "the end of the readings")


def _num_reads(rig: Rig) -> int:
    """Only the feed reads the index of nodes by ZRANGE here."""
    return int(rig.redis.info("commandstats").get("cmdstat_zrange", {}).get("calls", 0))


def _is_settled(rig: Rig) -> bool:
    """Whether nothing is read within more than the feed's interval."""
    first, started = _num_reads(rig), time.monotonic()
    wait_until(lambda: time.monotonic() - started > 1.5, "a second and a half")
    return _num_reads(rig) == first


def test_the_first_hundred_waiting_jobs_are_listed_and_all_are_counted(rig: Rig) -> None:
    for _ in range(103):
        rig.post("/v1/chat/completions", _chat("x"), Prefer="respond-async")
    with _listening(rig) as frames:
        _, snapshot = next(frames)
    queue = snapshot["queues"]["0"]
    assert (queue["waiting"], len(queue["order"])) == (103, 100)
    assert queue["order"] == rig.waiting_ids()[:100]
    assert set(queue["order"]) == set(snapshot["jobs"])


def _submit(rig: Rig, **fields: Any) -> str:
    body = {**_chat("x"), **fields}
    answer = rig.post("/v1/chat/completions", body, Prefer="respond-async")
    return str(answer.json()["id"])


def test_jobs_are_listed_by_class_in_the_order_in_which_they_are_taken(rig: Rig) -> None:
    first, urgent = _submit(rig), _submit(rig, priority=-5)
    flex = _submit(rig, service_tier="flex")
    with _listening(rig) as frames:
        _, snapshot = next(frames)
        assert snapshot["queues"]["0"] == {"waiting": 2, "order": [urgent, first]}
        assert snapshot["batch_queues"]["0"] == {"waiting": 1, "order": [flex]}
        assert snapshot["jobs"][urgent]["priority"] == -5
        assert snapshot["jobs"][flex]["job_class"] == "batch"
        rig.http.patch(f"/v1/jobs/{first}", json={"priority": -90})
        moved = _next(frames, "queues")
        assert moved["queues"]["0"] == {"waiting": 2, "drop": 1, "add": [urgent]}
        assert moved["jobs"][first] == {"priority": -90}


def test_a_job_that_was_handed_back_is_first_and_read_again(rig: Rig) -> None:
    line, other = _submit(rig, service_tier="flex"), _submit(rig, service_tier="flex")
    queue = rig.store.queue(names.batch_queue("0"))
    with _listening(rig) as frames:
        _, snapshot = next(frames)
        assert snapshot["batch_queues"]["0"]["order"] == [line, other]
        rig.redis.zrem(names.hint_key(queue.name, ""), other)  # as YIELD leaves it
        rig.redis.hset(names.job_key(other), "yields", 1)
        moved = _next(frames, "batch_queues")
        assert moved["batch_queues"]["0"] == {"waiting": 2, "drop": 1, "add": [line]}
        assert moved["jobs"][other] == {"yields": 1}


def test_classes_on_hold_are_shown(rig: Rig) -> None:
    rig.post("/management/queues/0/hold", {"classes": ["batch"]})
    with _listening(rig) as frames:
        _, snapshot = next(frames)
        assert snapshot["models"]["0"]["held"] == {"batch": "hold"}
        rig.post("/management/queues/0/resume", {})
        assert _next(frames, "models")["models"]["0"] == {"held": {}}


def test_a_key_is_shown_by_its_name(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, api_key="user-key") as rig:
        rig.supervise()
        rig.http.headers["Authorization"] = "Bearer user-key"
        rig.load()
        job_id = _submit(rig)
        with httpx.stream("GET", f"{rig.url}/v1/live", headers=rig.http.headers) as answer:
            _, snapshot = next(_frames(answer))
        assert snapshot["jobs"][job_id]["key"] == "default"


def test_one_unreadable_entry_hides_no_other(rig: Rig) -> None:
    rig.redis.hset(names.DESIRED_MODELS, "odd", b"{")
    rig.redis.set(names.status_key("0"), b"{")
    rig.redis.rpush(rig.store.queue(names.generation_queue("0")).key, "no-such-job")
    with _listening(rig) as frames:
        _, snapshot = next(frames)
    assert snapshot["models"]["0"]["state"] == "starting"
    assert snapshot["jobs"]["no-such-job"]["model"] == "0"


def _chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("new", "move"),
    [
        ("abcd", {"drop": 0, "add": ["d"]}),
        ("cd", {"drop": 2, "add": ["d"]}),
        ("", {"drop": 3, "add": []}),
        ("xyz", {"drop": 3, "add": ["x", "y", "z"]}),
        ("ac", {"order": ["a", "c"]}),
        ("xabc", {"drop": 3, "add": ["x", "a", "b", "c"]}),
    ],
)
def test_a_queue_moves_in_few_words(new: str, move: dict[str, Any]) -> None:
    before = LiveState(queues={"0": LiveQueue(3, ["a", "b", "c"])})
    after = LiveState(queues={"0": LiveQueue(len(new), list(new))})
    assert difference(before, after) == {"queues": {"0": {"waiting": len(new), **move}}}


def test_equal_states_differ_in_nothing() -> None:
    state = LiveState({"0": LiveModel("0", "m", "fake", "ready", 1.0)}, {"0": LiveQueue()})
    assert difference(state, state) == {}


def _status(beat_at: float, **fields: Any) -> WorkerStatus:
    return WorkerStatus("0", WorkerState.READY, 1, "here", [], beat_at=beat_at, **fields)


_NO_SUMS = dict.fromkeys((Sum.TIMED_JOBS, Sum.TTFT_S, Sum.PREFILL_S, Sum.DECODE_S), 0.0)


def test_rates_are_per_second_between_two_heartbeats() -> None:
    rates = Rates()
    rates.add(_status(10.0, generated_tokens=100), _NO_SUMS)
    assert rates.decode == 0
    new = _status(
        12.0,
        generated_tokens=180,
        prefilled_tokens=30,
        cached_tokens=10,
        jobs=[RunningJob("a", "decode", generated_tokens=20)],
    )
    rates.add(new, _NO_SUMS)
    rates.add(new, _NO_SUMS)  # the same heartbeat, read again
    assert (rates.decode, rates.prefill, rates.cached_share) == (40.0, 15.0, 0.25)
    assert rates.of_job("a") == 10.0


def test_rates_begin_again_with_another_worker() -> None:
    rates = Rates()
    rates.add(_status(10.0, generated_tokens=500), _NO_SUMS)
    rates.add(_status(11.0, generated_tokens=600), _NO_SUMS)
    rates.add(None, _NO_SUMS)
    assert rates.decode == 0
    rates.add(_status(13.0, generated_tokens=5), _NO_SUMS)
    assert rates.decode == 0


def test_means_follow_the_jobs_that_ended_last() -> None:
    rates = Rates()
    rates.add(None, {**_NO_SUMS, Sum.TIMED_JOBS: 2, Sum.TTFT_S: 1.0, Sum.DECODE_S: 8.0})
    assert (rates.ttft_ms, rates.service_s) == (500.0, 4.0)
    rates.add(None, {**_NO_SUMS, Sum.TIMED_JOBS: 3, Sum.TTFT_S: 1.1, Sum.DECODE_S: 18.0})
    assert rates.ttft_ms == pytest.approx(0.7 * 500 + 0.3 * 100)
