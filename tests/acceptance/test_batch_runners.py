"""The processes that work on batches: one per batch, and another when it is gone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil
import pytest

from jobs.storage import object_names
from jobs.storage.connection import connect
from tests.helpers.batches import Batches, batch_server, chat_line, jsonl
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def batches() -> Iterator[Batches]:
    server = batch_server(MGS_SLOTS="4")
    server.start("more batches", "api.batch_runner")
    try:
        runners = ("batches", "more batches")
        wait_until(lambda: all(_is_up(server, name) for name in runners), "both runners are up")
        yield Batches(server)
    finally:
        server.processes["more batches"].kill()
        server.processes["more batches"].wait()
        server.stop()


def _lease_of(server: Server, batch_id: str) -> str:
    with connect(server.redis_url) as redis:
        return (redis.get(object_names.batch_lease_key(batch_id)) or b"").decode()


def _owner(server: Server, batch_id: str) -> str:
    """The runner that has the batch's folder open."""
    for name in ("batches", "more batches"):
        with contextlib.suppress(psutil.NoSuchProcess):
            files = psutil.Process(server.processes[name].pid).open_files()
            if any(batch_id in file.path for file in files):
                return name
    return ""


def _is_up(server: Server, name: str) -> bool:
    """Whether the runner is connected to Redis: by then it has its signal handlers."""
    return bool(psutil.Process(server.processes[name].pid).net_connections("unix"))


def test_one_of_two_runners_has_a_batch_and_the_other_takes_it_over(batches: Batches) -> None:
    server = batches.server
    created = batches.create(jsonl(chat_line(n, "fake-5ms", max_tokens=12) for n in range(200)))
    batches.wait_for(created.id, 20)
    first, lease = _owner(server, created.id), _lease_of(server, created.id)
    server.processes[first].kill()
    server.processes[first].wait()
    second = wait_until(lambda: _owner(server, created.id), "a runner takes the batch over", 15)
    assert second != first
    batch = batches.end_of(created.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 200)
    assert [one["custom_id"] for one in batches.output(batch)] == [f"r{n}" for n in range(200)]
    assert lease.endswith("|1")
    server.start(first, "api.batch_runner")


def test_a_stopped_runner_ends_soon_and_its_batch_goes_on(batches: Batches) -> None:
    server = batches.server
    other = server.processes["more batches"]
    other.send_signal(signal.SIGTERM)
    assert other.wait(10) == 0
    created = batches.create(jsonl(chat_line(n, "fake-20ms", max_tokens=30) for n in range(40)))
    batches.wait_for(created.id, 4)
    runner = server.processes["batches"]
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(10) == 0
    num_ended = batches.num_ended(created.id)
    assert num_ended < 40
    server.start("batches", "api.batch_runner")
    batch = batches.end_of(created.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 40)
