"""Ended worker processes, as objects of their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from workers.supervision.worker_process import Child

DESIRED = DesiredModel("0", "uid", LoadRequest("fake", "fake"), "load-1", 1.0, was_ready=True)


def killed_child(desired: DesiredModel = DESIRED) -> Child:
    """A worker process of model_id 0 that was killed right after its start."""
    ended = threading.Event()
    child = Child("0", desired, "11|aa", lambda _: ended.set())
    os.kill(child.pid, signal.SIGKILL)
    assert ended.wait(20)
    return child


def ended_child(code: int, desired: DesiredModel = DESIRED) -> Child:
    """A worker process of model_id 0 that has ended with that exit code."""

    class Ended(Child):
        def _spawn(self, lifeline: int) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", f"raise SystemExit({code})"]
            return subprocess.Popen(command, stdout=subprocess.PIPE)

    ended = threading.Event()
    child = Ended("0", desired, "11|aa", lambda _: ended.set())
    assert ended.wait(20)
    return child
