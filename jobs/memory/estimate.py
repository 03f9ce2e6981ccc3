"""Estimates the memory of a model before it is loaded, from the headers of its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jobs.catalog.catalog import ModelEntry, find_adapter, find_draft
from jobs.contract.errors import ModelLoadError
from jobs.contract.requests import LoadRequest
from jobs.memory.facts import MachineFacts, machine_facts
from jobs.memory.gguf_memory import gguf_memory
from jobs.memory.ledger import MemoryLedger
from jobs.memory.mlx_memory import mlx_memory
from jobs.memory.plan import LoadPlan, ModelMemory
from jobs.settings import Settings

Basis = Literal["header", "guess", "measured"]

_GUESSED_WEIGHTS = 1.2  # of the size of the files, for weights and what else is not known


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that a model needs: of its weights, of the state of its sequences, of computing, and
    of prompts that are kept (at most).

    ``basis``: what ``total_bytes`` is from: the headers of the files (``header``), also for an
    architecture of which not all is known (``guess``), or the memory of an earlier process
    (``measured``).
    """

    weights_bytes: int
    state_bytes: int
    compute_bytes: int
    total_bytes: int
    basis: Basis
    cache_bytes: int = 0

    @property
    def needed_bytes(self) -> int:
        """Without the kept prompts, of which there may be fewer."""
        return self.total_bytes - self.cache_bytes


def estimate_memory(
    entry: ModelEntry, load: LoadRequest, settings: Settings, facts: MachineFacts | None = None
) -> MemoryEstimate:
    """The memory of ``entry``, loaded with these options on a machine, this one by default.

    Raises ``ModelLoadError`` for files whose headers cannot be read, and the errors of
    ``find_adapter`` and ``find_draft``.
    """
    if entry.backend == "fake":
        return MemoryEstimate(0, 0, 0, 0, "header")
    plan = LoadPlan.of(load, settings, machine_facts() if facts is None else facts)
    own = _memory(entry, plan)
    parts = [own]
    if load.draft_model is not None:
        draft = find_draft(settings, load.draft_model, entry.backend)
        parts.append(_memory(draft, plan.of_draft(own.context_length)))
    weights = sum(part.weights_bytes for part in parts)
    if load.adapter is not None:
        adapter = find_adapter(settings.adapters_dir, load.adapter, entry.backend)
        weights += adapter.size_bytes * plan.weight_growth(entry.backend)
    state = sum(part.state_bytes for part in parts)
    compute = sum(part.compute_bytes for part in parts) + plan.process_bytes(entry.backend)
    cache = plan.prompt_cache_bytes(entry.backend)
    basis: Basis = "header" if all(part.is_known for part in parts) else "guess"
    return MemoryEstimate(
        weights, state, compute, weights + state + compute + cache, basis, cache
    )


def _memory(entry: ModelEntry, plan: LoadPlan) -> ModelMemory:
    memory = (gguf_memory if entry.backend == "llama-cpp" else mlx_memory)(entry.path, plan)
    if memory.is_known:
        return memory
    return replace(memory, weights_bytes=int(_GUESSED_WEIGHTS * memory.weights_bytes))
