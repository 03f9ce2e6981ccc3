"""The budget of machines that are played: Macs, Linux, control groups, GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
import pytest

from jobs.memory.budget import MemoryBudget, read_budget
from jobs.memory.budget_setting import BudgetSetting, parse_budget
from jobs.memory.facts import Gpu, MachineFacts, read_facts
from jobs.platform.darwin import Darwin
from jobs.platform.linux import Linux
from jobs.settings import Settings

GIB = 1 << 30


def mac(memory_gib: int, working_set_gib: float) -> MachineFacts:
    gpu = Gpu("metal", int(working_set_gib * GIB))
    return MachineFacts(memory_gib * GIB, {"mlx": gpu, "llama-cpp": gpu})


def budget_of(facts: MachineFacts, setting: str = "") -> MemoryBudget:
    return read_budget(Settings(memory_budget=setting), facts)


@pytest.mark.parametrize(
    ("memory", "working_set", "expected", "binding"),
    [
        (8, 5.33, 4.0, "memory"),
        (16, 10.67, 10.0, "memory"),
        (64, 47.5, 47.5, "working_set"),
        (128, 107.52, 107.52, "working_set"),
        (128, 120.0, 116.0, "memory"),  # somebody has raised the limit of wired memory
    ],
)
def test_a_mac_gives_what_its_gpu_may_hold_and_keeps_a_reserve(
    memory: int, working_set: float, expected: float, binding: str
) -> None:
    found = budget_of(mac(memory, working_set))
    assert found == MemoryBudget(int(expected * GIB), binding)


def test_a_machine_without_a_gpu_gives_nine_tenths() -> None:
    assert budget_of(MachineFacts(100 * GIB)) == MemoryBudget(90 * GIB, "memory")
    in_group = MachineFacts(10 * GIB, is_in_group=True)
    assert budget_of(in_group) == MemoryBudget(9 * GIB, "cgroup")


def test_a_gpu_with_its_own_memory_gives_what_is_free_there_but_half_a_gib() -> None:
    gpu = Gpu("cuda", limit_bytes=24 * GIB, free_bytes=20 * GIB)
    facts = MachineFacts(64 * GIB, {"mlx": gpu})
    assert budget_of(facts) == MemoryBudget(19 * GIB + GIB // 2, "gpu")
    assert budget_of(facts, "50%") == MemoryBudget(10 * GIB, "setting")


def test_the_setting_wins_over_the_rule() -> None:
    facts = mac(16, 10.67)
    assert budget_of(facts, "12GB") == MemoryBudget(12 * 10**9, "setting")
    assert budget_of(facts, "80%") == MemoryBudget(int(0.8 * 16 * GIB), "setting")
    assert budget_of(facts, "0") == MemoryBudget(None, "none")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("1500000000", BudgetSetting(1_500_000_000)),
        ("12GB", BudgetSetting(12 * 10**9)),
        ("12 gib", BudgetSetting(12 * GIB)),
        ("1.5T", BudgetSetting(1_500_000_000_000)),
        ("512M", BudgetSetting(512_000_000)),
        ("80%", BudgetSetting(share=0.8)),
    ],
)
def test_a_budget_can_be_written_in_many_ways(text: str, expected: BudgetSetting | None) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["much", "-1", "12 apples", "0%", "120%", "1e9", "nan"])
def test_another_budget_stops_the_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"give bytes|a share is"):
        Settings(memory_budget=text)


# Facts


def ask(command: Sequence[str]) -> str | None:
    return {"hw.memsize": str(32 * GIB)}.get(command[-1])


def test_a_macs_gpu_is_asked_for_in_another_process() -> None:
    gpu = Gpu("metal", 21 * GIB)
    answer = msgspec.json.encode({"mlx": gpu, "llama-cpp": gpu})
    facts = read_facts(Darwin(ask, lambda *_: -1), lambda: answer)
    assert facts == MachineFacts(32 * GIB, {"mlx": gpu, "llama-cpp": gpu})


@pytest.mark.parametrize("answer", [None, b"", b"{", b'{"mlx": 3}', b"\xff"])
def test_a_mac_whose_libraries_do_not_answer_is_assumed_to_have_the_usual_gpu(
    answer: bytes | None,
) -> None:
    facts = read_facts(Darwin(ask, lambda *_: -1), lambda: answer)
    assert facts.gpu_of("mlx") == facts.gpu_of("llama-cpp") == Gpu("metal", 24 * GIB)


def test_where_no_gpu_can_be_the_libraries_are_not_asked(tmp_path: Path) -> None:
    def fail() -> bytes | None:
        raise AssertionError("asked")

    facts = read_facts(Linux(tmp_path), fail)
    assert facts == MachineFacts(psutil.virtual_memory().total)


def test_a_gpu_of_linux_is_found_by_its_device(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    gpu = Gpu("cuda", 24 * GIB, 23 * GIB)
    facts = read_facts(Linux(tmp_path), lambda: msgspec.json.encode({"llama-cpp": gpu}))
    assert facts.gpu_of("llama-cpp") == gpu
    assert facts.gpu_of("mlx") is None


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("0::/user/job", {"user/job/memory.max": "max", "user/memory.max": str(3 * GIB)}),
        ("0::/", {"memory.max": str(3 * GIB)}),
        ("0::/gone/in/this/container", {"memory.max": str(3 * GIB)}),
        ("5:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": str(3 * GIB)}),
    ],
    ids=["a group above", "a container", "an unknown path", "version 1"],
)
def test_the_limit_of_a_control_group_counts(
    tmp_path: Path, line: str, limits: dict[str, str]
) -> None:
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"7:devices:/x\n{line}\n")
    for name, text in limits.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    facts = read_facts(Linux(tmp_path), lambda: None)
    assert facts == MachineFacts(3 * GIB, is_in_group=True)
