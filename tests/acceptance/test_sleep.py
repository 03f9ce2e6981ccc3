"""A machine that sleeps for a night loses no request, no queued job and no result.

In sleep the wall clock goes on, Redis' too, and the monotonic one stands still.
"""

from __future__ import annotations

import sys

import httpx
import pytest

from jobs.storage import names
from tests.faults.clients import Stream, body, expected, is_exact
from tests.faults.rig import (
    direct_client,
    job,
    running_server,
    submit,
    text_of,
    wait_ended,
    worker_pid,
)
from tests.helpers.clock_shift import clock_shift

NIGHT_S = 8 * 3600


@pytest.mark.skipif(sys.platform != "linux", reason="macOS lets nobody replace a clock")
def test_a_night_of_sleep_loses_no_request_no_queued_job_and_no_result(tmp_path) -> None:
    with running_server(**clock_shift(tmp_path), MGS_LOG_TTL_S="600", MGS_SLOTS="1") as server:
        server.load("fake-10ms")
        pid = worker_pid(server)
        unread = submit(server, body(8, 4))
        wait_ended(server, unread)
        fields = {"model": "fake-10ms", "input": "hi", "max_output_tokens": 4}
        response = server.post("/v1/responses", fields).json()["id"]
        stream = Stream(server.port, body(8, 150))
        stream.wait_text(10)
        queued = [submit(server, body(8, 4)) for _ in range(3)]
        assert [job(server, one)["status"] for one in queued] == ["queued"] * 3
        (tmp_path / "clock").write_text(str(NIGHT_S))
        answer = stream.result()
        assert is_exact(answer, 8, 150), answer
        for job_id in (unread, *queued):
            found = wait_ended(server, job_id)
            assert (found["status"], text_of(found)) == ("finished", expected(8, 4))
        kept = httpx.get(f"{server.url}/v1/responses/{response}", timeout=20)
        assert kept.json()["status"] in ("completed", "incomplete"), kept.text
        assert worker_pid(server) == pid
        with direct_client(server.redis_url) as redis:
            attempts = [redis.hget(names.job_key(one), "attempt") for one in queued]
        assert attempts == [b"1"] * 3
