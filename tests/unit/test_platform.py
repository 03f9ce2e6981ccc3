"""What the system is asked, on Linux for real and on a Mac that is played."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.platform import darwin
from jobs.platform.awake import AwakeWhileBusy
from jobs.platform.base import ask_program
from jobs.platform.current import current_platform
from jobs.platform.darwin import Darwin, _RusageInfo
from jobs.platform.linux import Linux
from tests.helpers.clock import Clock


class Mac:
    """Programs of a Mac: what each says to its last argument; nothing to others."""

    def __init__(self, **says: str) -> None:
        self._says = {name.replace("__", "."): said for name, said in says.items()}
        self.asked: list[str] = []

    def ask(self, command: Sequence[str]) -> str | None:
        self.asked.append(" ".join(command))
        return self._says.get(command[-1])

    def platform(self) -> Darwin:
        return Darwin(self.ask, lambda *_: -1)


def test_on_a_mac_only_performance_cores_compute() -> None:
    assert Mac(hw__perflevel0__physicalcpu="8").platform().physical_cores() == 8


def test_a_mac_that_tells_nothing_is_served_by_general_answers() -> None:
    silent = Mac().platform()
    assert silent.physical_cores() >= 1
    assert silent.memory_bytes() == psutil.virtual_memory().total
    assert silent.node_name() == platform.node()
    assert silent.boot_id() == str(int(psutil.boot_time()))
    assert silent.spawn_type("anything") is None


def test_a_macs_name_does_not_come_from_the_network_and_is_asked_once() -> None:
    mac = Mac(LocalHostName="Studio")
    asked = mac.platform()
    assert [asked.node_name() for _ in range(3)] == ["Studio"] * 3
    assert len(mac.asked) == 1


def test_a_mac_tells_its_boots_apart() -> None:
    assert Mac(kern__bootsessionuuid="A-B").platform().boot_id() == "A-B"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("", 24 * 2**30), ("0", 24 * 2**30), ("28672", 28 * 2**30)],
    ids=["unknown", "not set", "set"],
)
def test_the_gpu_gets_three_quarters_of_the_memory_or_what_was_set(
    limit: str, expected: int
) -> None:
    mac = Mac(hw__memsize=str(32 * 2**30), iogpu__wired_limit_mb=limit)
    assert mac.platform().device_memory_bytes() == expected


def test_a_macs_footprint_is_read_from_its_place_in_the_systems_record() -> None:
    """<sys/resource.h>: 16 bytes of uuid, then 64-bit numbers; the footprint is the eighth."""

    def rusage(pid: int, flavor: int, buffer: Any) -> int:
        assert flavor == 4
        if pid != 7:
            return -1
        numbers = b"".join(number.to_bytes(8, sys.byteorder) for number in range(1, 36))
        ctypes.memmove(buffer, bytes(16) + numbers, 296)
        return 0

    assert ctypes.sizeof(_RusageInfo) == 296
    assert Darwin(Mac().ask, rusage).footprint_bytes(7) == 8
    assert Darwin(Mac().ask, rusage).footprint_bytes(8) == 0


@pytest.mark.parametrize(
    ("machine", "translated", "expected"),
    [
        ("arm64", "0", None),
        ("x86_64", "1", "x86_64 under Rosetta: MLX needs an arm64 Python"),
        ("x86_64", "", "x86_64: MLX needs Apple silicon"),
    ],
)
def test_a_python_for_another_processor_is_named(
    monkeypatch: pytest.MonkeyPatch, machine: str, translated: str, expected: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert Mac(sysctl__proc_translated=translated).platform().translation_problem() == expected


@pytest.mark.parametrize(
    ("version", "is_problem"), [("13.7.1", True), ("14.0", False), ("26.1", False), ("", False)]
)
def test_a_macos_without_wheels_of_mlx_is_named(version: str, is_problem: bool) -> None:
    problem = Mac(**{"-productVersion": version}).platform().version_problem()
    assert (problem is not None) == is_problem


def test_the_type_of_a_job_of_launchd_is_read() -> None:
    job = f"gui/{os.getuid()}/local.mgs"
    mac = Mac(**{job: f"{job} = {{\n\tactive count = 1\n\tspawn type = interactive (4)\n}}"})
    assert mac.platform().spawn_type("local.mgs") == "interactive"


@pytest.mark.parametrize("kind", ["interactive", "background", "daemon"])
def test_only_an_interactive_job_of_launchd_is_not_throttled(kind: str) -> None:
    job = f"gui/{os.getuid()}/local.mgs"
    found = Mac(**{job: f"\tspawn type = {kind} (4)"}).platform()
    problem = found.throttling_problem("local.mgs")
    assert (problem is None) == (kind == "interactive")
    assert problem is None or "ProcessType Interactive" in problem


@pytest.mark.parametrize("job", [None, "", "0", "application.com.apple.Terminal.1.2", "unknown"])
def test_a_terminal_is_no_job_that_is_throttled(job: str | None) -> None:
    assert Mac().platform().throttling_problem(job) is None


def test_a_mac_shows_no_title_so_that_no_process_becomes_an_application() -> None:
    code = "from jobs.platform.darwin import Darwin\nimport sys\n"
    code += (
        "Darwin(rusage=lambda *_: -1).title_process('mgs')\nprint('setproctitle' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_a_mac_is_kept_awake_by_a_process_that_ends_with_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, written = tmp_path / "caffeinate", tmp_path / "arguments"
    program.write_text(f'#!/bin/sh\necho "$@" > {written}.new && mv {written}.new {written}\n')
    program.chmod(0o755)
    monkeypatch.setattr(darwin, "_CAFFEINATE", str(program))
    awake = Mac().platform().keep_awake(7)
    assert awake is not None
    awake._process.wait(20)  # type: ignore[attr-defined]
    awake.release()
    assert written.read_text() == "-i -w 7\n"


def test_releasing_ends_the_process_that_keeps_a_mac_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "caffeinate"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(darwin, "_CAFFEINATE", str(program))
    awake = Mac().platform().keep_awake(os.getpid())
    assert awake is not None
    pid: int = awake._process.pid  # type: ignore[attr-defined]
    awake.release()
    assert not psutil.pid_exists(pid)


def test_a_mac_without_caffeinate_serves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darwin, "_CAFFEINATE", "/nowhere/caffeinate")
    assert Mac().platform().keep_awake(os.getpid()) is None


class Assertions:
    """A platform that notes when it is kept awake and when it is let go."""

    def __init__(self, *, works: bool = True) -> None:
        self.said: list[str] = []
        self._works = works

    def keep_awake(self, pid: int) -> Assertions | None:
        assert pid == os.getpid()
        self.said.append("held")
        return self if self._works else None

    def release(self) -> None:
        self.said.append("released")


def test_a_machine_is_kept_awake_from_the_first_job_to_half_a_minute_after_the_last() -> None:
    clock, system = Clock(), Assertions()
    awake = AwakeWhileBusy(system, clock)
    awake.note(is_busy=False)
    assert system.said == []
    for _ in range(3):
        awake.note(is_busy=True)
    clock.now += 29
    awake.note(is_busy=False)
    awake.note(is_busy=True)
    clock.now += 29
    awake.note(is_busy=False)
    assert system.said == ["held"]
    clock.now += 1
    awake.note(is_busy=False)
    awake.note(is_busy=False)
    assert system.said == ["held", "released"]
    awake.note(is_busy=True)
    awake.release()
    awake.release()
    assert system.said == ["held", "released"] * 2


def test_a_machine_that_cannot_be_kept_awake_is_asked_once_per_busy_time() -> None:
    clock, system = Clock(), Assertions(works=False)
    awake = AwakeWhileBusy(system, clock)
    for _ in range(10):
        awake.note(is_busy=True)
    assert system.said == ["held"]


def test_nothing_keeps_the_machine_awake_when_that_is_switched_off() -> None:
    awake = AwakeWhileBusy(None)
    awake.note(is_busy=True)
    awake.release()


def test_a_program_that_is_missing_or_fails_has_no_answer() -> None:
    assert ask_program(["/nowhere/program"]) is None
    assert ask_program([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert ask_program([sys.executable, "-c", "print(' said ')"]) == "said"


_SHARER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    sum(pages[place] for place in range(0, len(pages), mmap.PAGESIZE))
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc tells")
def test_of_memory_that_two_processes_share_each_pays_half(tmp_path: Path) -> None:
    size = 64 * 2**20
    shared = tmp_path / "shared"
    shared.write_bytes(b"\1" * size)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SHARER, str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == [b"ready\n"] * 2
        costs = [Linux().footprint_bytes(process.pid) for process in processes]
    finally:
        for process in processes:
            process.communicate()
    assert all(size / 2 < cost < size for cost in costs)


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc tells")
def test_a_footprint_is_cheap_because_pages_are_walked_now_and_then_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walks: list[int] = []
    walk = psutil.Process.memory_full_info

    def counted(process: psutil.Process) -> Any:
        walks.append(process.pid)
        return walk(process)

    monkeypatch.setattr(psutil.Process, "memory_full_info", counted)
    system = Linux()
    assert all(system.footprint_bytes(os.getpid()) > 0 for _ in range(5))
    assert len(walks) < 5


def test_a_process_that_has_ended_costs_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert current_platform().footprint_bytes(process.pid) == 0
    assert Linux().footprint_bytes(process.pid) == 0
