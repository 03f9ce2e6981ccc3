"""One machine: host name, process ids, state folder and cables of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

import jobs
from tests.helpers.netns import Host as Place
from tests.helpers.waiting import wait_until
from tests.machines.client import Client

ROOT = Path(jobs.__file__).resolve().parents[1]
PORT = 4000
Cut = Literal["silence", "down"]
"""How a cable is cut: the switch forgets it, or the interface goes down, as wireless ones do."""
PARTS = ("api", "supervisor", "worker")
_STOP_S = 20.0
_START_S = 40.0
_READY = "supervisor is ready"
_WORKER = re.compile(r"--model-id (\S+)|worker of model (\S+)")
# The workers' network keeps a name when /proc shows only what runs on the machine.
_FIRST = """
mount --bind {net} {file}
mount -t proc proc /proc
hostname {name}
trap '' CHLD
exec sleep infinity
"""
# As the supervisor's own, but that workers are started by our script, which gives them a cable.
_SUPERVISOR = """
import runpy, sys
sys.executable = sys.argv.pop(1)
runpy.run_module("workers.supervision.supervisor", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A started process: ``pid`` as this test sees it, ``door`` what brought it in there."""

    pid: int
    door: subprocess.Popen[bytes]

    @property
    def is_running(self) -> bool:
        return self.door.poll() is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number is signal.SIGCONT:  # the door stops with what it brought in, and wakes it too
            self.door.send_signal(number)

    def wait(self, timeout_s: float = _STOP_S) -> int:
        """Its exit code."""
        self.door.send_signal(signal.SIGCONT)
        return self.door.wait(timeout_s)


class Machine:
    """API, supervisor and workers, each behind a cable of its own.

    ``places`` and ``urls``: network and Redis of each of ``PARTS``. ``hostname`` and process ids
    may be those of other machines.
    """

    def __init__(
        self,
        name: str,
        hostname: str,
        folder: Path,
        places: dict[str, Place],
        urls: dict[str, str],
        env: dict[str, str],
    ) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True)
        self.places = places
        self.client = Client(self.places["api"], PORT)
        self.api: Program | None = None
        self.supervisor: Program | None = None
        self._doors: list[subprocess.Popen[bytes]] = []
        self._hostname = hostname
        self._env = env
        self._urls = urls
        self._write_worker_script()
        self._begin()

    def start_api(self) -> Program:
        """An API that answers."""
        self.api = self._start("api", [sys.executable, "-m", "api"], 2000)
        self._wait_for(self.api, self.client.is_listening, f"the API of {self.name} listens")
        return self.api

    def start_supervisor(self, *, is_waited_for: bool = True) -> Program:
        """A supervisor that has said that it is ready."""
        num_starts = self.log("supervisor").count(_READY)
        command = [sys.executable, "-c", _SUPERVISOR, str(self._worker_script)]
        self.supervisor = self._start("supervisor", command, 500)
        if is_waited_for:
            self._wait_for(
                self.supervisor,
                lambda: self.log("supervisor").count(_READY) > num_starts,
                f"the supervisor of {self.name} is ready",
            )
        return self.supervisor

    def _wait_for(self, program: Program, is_ready: Callable[[], bool], what: str) -> None:
        wait_until(lambda: is_ready() or not program.is_running, what, _START_S)
        assert program.is_running, f"it ended before this: {what}"

    def set_next_pid(self, pid: int) -> None:
        """The next process or thread here has that id, as on every host where this is said."""
        write = f"echo {pid - 1} > /proc/sys/kernel/ns_last_pid"
        subprocess.run([*self._enter(), "sh", "-c", write], check=True, timeout=20)

    def workers(self) -> dict[int, str]:
        """Living worker processes, whoever their parent is: process id -> model id."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                match = _WORKER.search(" ".join(process.cmdline()))
                if match and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = match[1] or match[2]
        return found

    def worker(self, model_id: str = "0") -> int:
        """The one worker process of a model here, or 0."""
        pids = [pid for pid, of in self.workers().items() if of == model_id]
        assert len(pids) <= 1, f"{self.name} has several workers of {model_id}: {pids}"
        return pids[0] if pids else 0

    def processes(self) -> list[psutil.Process]:
        """All that runs on this machine."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.readlink(f"/proc/{pid}/ns/pid") == self._process_namespace:
                    found.append(psutil.Process(pid))
        return found

    def inner_pid(self, pid: int) -> int:
        """What a process's id is on this machine itself."""
        status = Path(f"/proc/{pid}/status").read_text()
        match = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def cut(self, *parts: str, how: Cut = "silence") -> None:
        """From now on nothing reaches those parts, or comes from them; all when none is named."""
        for part in parts or PARTS:
            if how == "silence":
                self.places[part].cut()
            else:
                self.places[part].call("ip", "link", "set", "eth0", "down")

    def join(self, *parts: str) -> None:
        """End of ``cut``, however it was done."""
        for part in parts or PARTS:
            self.places[part].restore()
            self.places[part].call("ip", "link", "set", "eth0", "up")

    def log(self, part: str) -> str:
        """What a part has written; the workers write to their supervisor's."""
        path = self.folder / f"{part}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """The power fails: everything here is gone at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._first, signal.SIGKILL)
        for door in (*self._doors, self._holder):
            door.kill()
            door.wait(_STOP_S)
        self._doors.clear()
        self.api = self.supervisor = None

    def boot(self) -> None:
        """After ``kill``: the machine is up again, with nothing started."""
        self._begin()

    def _begin(self) -> None:
        """A first process, which holds the namespaces and takes everything along when it ends."""
        script = _FIRST.format(
            net=_net(self.places["worker"]), file=self._worker_net, name=shlex.quote(self._hostname)
        )
        command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork"]
        command += ["--kill-child", "--mount", "--uts"]
        with (self.folder / "machine.log").open("ab") as log:
            self._holder = subprocess.Popen(
                [*command, "sh", "-c", script], stdout=log, stderr=log, start_new_session=True
            )
        first = wait_until(lambda: _child(self._holder), "the machine is up")
        wait_until(lambda: _cmdline(first)[:1] == ["sleep"], "the machine has its name")
        self._first = first
        self._process_namespace = os.readlink(f"/proc/{first}/ns/pid")

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._first), "--pid", "--mount", "--uts"]

    def _start(self, part: str, command: list[str], pid: int) -> Program:
        self.set_next_pid(pid)
        place = self.places[part]
        env = {**self._env, "REDIS_URL": self._urls[part], "PYTHONPATH": str(ROOT)}
        with (self.folder / f"{part}.log").open("ab") as log:
            door = subprocess.Popen(
                [*self._enter(), f"--net={_net(place)}", f"--wd={ROOT}", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._doors.append(door)
        return Program(wait_until(lambda: _child(door), f"{part} runs"), door)

    def _write_worker_script(self) -> None:
        self._worker_net = self.folder / "worker.net"
        self._worker_net.touch()
        self._worker_script = self.folder / "worker"
        url = shlex.quote(self._urls["worker"])
        command = f'REDIS_URL={url} exec nsenter --net={self._worker_net} {sys.executable} "$@"'
        self._worker_script.write_text(f"#!/bin/sh\n{command}\n")
        self._worker_script.chmod(0o755)


def _child(door: subprocess.Popen[bytes]) -> int:
    assert door.poll() is None, f"{door.args!r} ended with {door.returncode}"
    children = psutil.Process(door.pid).children()
    return children[0].pid if children else 0


def _cmdline(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return []


def _net(place: Place) -> str:
    return f"/proc/{place.pid}/ns/net"
