"""A worker one of whose threads has died ends: a process that only looks alive serves nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract.requests import LoadRequest
from tests.helpers.driver import Driver
from tests.helpers.supervised import ROOT
from workers.exits import ExitCode

BREAKS = {
    "decode loop": "workers.generation.decode_loop.DecodeLoop.run",
    "queue consumer": "workers.rq_bridge.queue_consumer.QueueConsumer.work",
    "publisher": "workers.generation.publisher.Publisher.run",
    "bookkeeper": "workers.rq_bridge.bookkeeper.Bookkeeper.run",
    "heartbeat": "workers.runtime.heartbeat.Heartbeat.run",
}

MAIN = """
import importlib, sys
name, _, method = sys.argv.pop(1).rpartition(".")
module, _, owner = name.rpartition(".")
def break_down(*_):
    raise RuntimeError("nobody has thought of this")
setattr(getattr(importlib.import_module(module), owner), method, break_down)
from workers.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("part", BREAKS)
def test_a_part_that_breaks_down_ends_the_process(
    redis_url: str, tmp_path: Path, part: str
) -> None:
    driver = Driver(redis_url, tmp_path)
    load_job = driver.submit(LoadRequest("fake", "fake"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
    env = {"REDIS_URL": redis_url, "MGS_FAKE_ENGINE": "1", "MGS_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", MAIN, BREAKS[part], "--model-id", "0", "--token", "aa"]
    command += ["--load-job", load_job, "--owner", "11|aa"]
    done = subprocess.run(
        command, env=kept | env, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    driver.close()
    assert done.returncode == ExitCode.CRASHED, done.stderr
    assert "nobody has thought of this" in done.stdout + done.stderr
