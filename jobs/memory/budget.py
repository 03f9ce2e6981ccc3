"""How much memory all models of a machine may need together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.memory.budget_setting import BudgetSetting, parse_budget
from jobs.memory.facts import Gpu, MachineFacts, machine_facts
from jobs.settings import Settings

_GIB = 1 << 30
_KEPT_OF_GPU = _GIB // 2  # beside the models, of a GPU with memory of its own
_KEPT_SHARE = 0.1  # of the memory of a machine without a GPU
# What a Mac needs for itself and its programs: by the memory that it has at least.
_KEPT_OF_MAC = ((96 * _GIB, 12 * _GIB), (32 * _GIB, 8 * _GIB), (16 * _GIB, 6 * _GIB))
_KEPT_OF_SMALL_MAC = 4 * _GIB

Binding = Literal["setting", "working_set", "memory", "cgroup", "gpu", "none"]


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """``total_bytes``: ``None``: no limit. ``binding`` is what sets it.

    ``setting``: MGS_MEMORY_BUDGET; ``working_set``: what macOS recommends for the GPU; ``memory``:
    the machine's, less a reserve; ``cgroup``: the control group's; ``gpu``: what was free on it.
    """

    total_bytes: int | None
    binding: Binding


def read_budget(settings: Settings, facts: MachineFacts | None = None) -> MemoryBudget:
    """The budget of a machine, this one by default; the first call may take seconds."""
    setting = parse_budget(settings.memory_budget)
    if setting is not None and setting.num_bytes == 0:
        return MemoryBudget(None, "none")
    if setting is not None and setting.num_bytes is not None:
        return MemoryBudget(setting.num_bytes, "setting")
    found = machine_facts() if facts is None else facts
    return by_rule(found) if setting is None else _by_share(setting, found)


def _by_share(setting: BudgetSetting, facts: MachineFacts) -> MemoryBudget:
    """A share of all memory of a machine or, if its GPU has its own, of what is free there."""
    gpu = facts.gpu
    whole = facts.memory_bytes if gpu is None or gpu.kind != "cuda" else _unused(gpu)
    return MemoryBudget(int((setting.share or 1.0) * whole), "setting")


def _unused(gpu: Gpu) -> int:
    return gpu.free_bytes or gpu.limit_bytes


def by_rule(facts: MachineFacts) -> MemoryBudget:
    """The budget without a setting."""
    gpu = facts.gpu
    if gpu is None or gpu.kind == "other":
        binding: Binding = "cgroup" if facts.is_in_group else "memory"
        return MemoryBudget(int((1 - _KEPT_SHARE) * facts.memory_bytes), binding)
    if gpu.kind == "cuda":
        return MemoryBudget(max(0, _unused(gpu) - _KEPT_OF_GPU), "gpu")
    left = facts.memory_bytes - _kept_of_mac(facts.memory_bytes)
    if gpu.limit_bytes <= left:
        return MemoryBudget(gpu.limit_bytes, "working_set")
    return MemoryBudget(left, "memory")


def _kept_of_mac(memory_bytes: int) -> int:
    kept = (kept for least, kept in _KEPT_OF_MAC if memory_bytes >= least)
    return next(kept, _KEPT_OF_SMALL_MAC)
