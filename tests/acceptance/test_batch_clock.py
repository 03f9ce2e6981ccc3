"""The wall clock of the process for batches jumps while it works (Linux)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.batches import Batches, chat_line, jsonl, told
from tests.helpers.clock_shift import clock_shift
from tests.helpers.server import Server, make_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="a preloaded library moves the clock"),
]
_HOUR_S = 3600
_NUM = 200


@pytest.fixture
def server() -> Iterator[Server]:
    found = make_server()
    try:
        found.start_all()
        right = dict(found.env)
        found.env.update(clock_shift(found.folder))
        found.start("batches", "api.batch_runner")
        found.env.clear()
        found.env.update(right)
        yield found
    finally:
        found.stop()


def num_run(server: Server) -> float:
    """Jobs of lines that have ended, by /metrics."""
    text = httpx.get(f"{server.url}/metrics", timeout=20).text
    return sum(float(n) for n in re.findall(r"^mgs_batch_lines_total{.*} (\S+)$", text, re.M))


def test_each_line_is_answered_once_while_the_clock_jumps(server: Server) -> None:
    batches, clock = Batches(server), Path(server.folder / "clock")
    lines = [chat_line(n, "fake-5ms", max_tokens=12) for n in range(_NUM)]
    undisturbed = [told(one) for one in batches.output(batches.run(lines))]
    for hours in ((1, -1), (-1, 1)):
        before = num_run(server)
        created = batches.create(jsonl(lines))
        for jump, num in zip((*hours, 0), (10, 60, 120), strict=True):
            batches.wait_for(created.id, num)
            clock.write_text(str(jump * _HOUR_S))
        batch = batches.end_of(created.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", _NUM)
        assert [told(one) for one in batches.output(batch)] == undisturbed
        assert num_run(server) == before + _NUM
