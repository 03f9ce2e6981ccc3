"""The tests' own network: hosts reach each other, and nothing of it outlives the tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.netns import need_network, network
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_HOLD = """
from tests.helpers.netns import network
with network("one", "two") as hosts:
    inside = [host.start(["sleep", "600"]) for host in hosts]
    print(*(process.pid for process in inside), *(host.pid for host in hosts), flush=True)
    input()
"""


def test_hosts_have_names_and_a_cut_host_is_reached_again_later() -> None:
    with network("one", "two") as (one, two):
        name = subprocess.run(two.command("hostname"), capture_output=True, check=True).stdout
        assert name == b"two\n"
        with two.inside():
            server = socket.create_server((two.address, 7000))
        for _ in range(2):
            with one.inside(), socket.create_connection((two.address, 7000), 20):
                server.accept()[0].close()
            two.cut()
            two.restore()
        server.close()


def test_nothing_is_left_behind_after_kill_9() -> None:
    need_network()
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(psutil.pid_exists, pids))
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), "all processes have ended")
