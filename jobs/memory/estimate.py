"""Estimates the memory of a model before it is loaded, from the headers of its files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.catalog.catalog import ModelEntry, find_adapter, find_draft, model_options
from jobs.catalog.fingerprint import fingerprint
from jobs.contract.errors import JobError, ModelLoadError
from jobs.contract.requests import LoadRequest
from jobs.memory.facts import MachineFacts, machine_facts
from jobs.memory.formats.gguf_file import read_gguf_model
from jobs.memory.formats.gguf_memory import gguf_memory
from jobs.memory.formats.mlx_memory import mlx_memory, read_mlx_folder
from jobs.memory.formats.plan import Device, LoadPlan, ModelMemory
from jobs.memory.ledger import MemoryKey, MemoryLedger
from jobs.settings import Settings

Basis = Literal["header", "guess", "measured", "given"]

# A file may say anything; what the rules do with that ends in one of these.
_ODD = (
    ModelLoadError, OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
_GUESSED_WEIGHTS = 1.2  # of the files' size
_GUESSED_STATE = 0.15  # of the files' size, where nothing is known


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that a model needs: its weights, the state of its sequences, computing, kept prompts.

    ``cache_bytes`` is the limit of kept prompts. ``basis`` is what ``total_bytes`` is from: the
    headers of the files (``header``), the same with something unknown in them (``guess``), the
    memory of an earlier process (``measured``), or models.toml (``given``). ``context_length``,
    ``num_slots`` and ``state_per_token`` (bytes) say for what; 0 where nothing is known.
    """

    weights_bytes: int
    state_bytes: int
    compute_bytes: int
    total_bytes: int
    basis: Basis
    cache_bytes: int = 0
    context_length: int = 0
    num_slots: int = 0
    state_per_token: int = 0


def estimate_memory(
    entry: ModelEntry, load: LoadRequest, settings: Settings, facts: MachineFacts | None = None
) -> MemoryEstimate:
    """The memory of ``entry``, loaded with these options on a machine, this one by default.

    Files that cannot be read make a guess by their size: the load itself says what is wrong.
    """
    if entry.backend == "fake":
        return MemoryEstimate(0, 0, 0, 0, "header")
    plan = LoadPlan.of(load, settings, machine_facts() if facts is None else facts)
    own = _memory(entry, plan)
    parts = [own, *_draft(load, entry, settings, plan.of_draft(own.context_length))]
    weights = sum(part.weights_bytes for part in parts) + _adapter_bytes(load, entry, settings)
    state = sum(part.state_bytes for part in parts)
    compute = sum(part.compute_bytes for part in parts) + plan.process_bytes(entry.backend)
    cache = plan.prompt_cache_bytes(entry.backend)
    return MemoryEstimate(
        weights_bytes=weights,
        state_bytes=state,
        compute_bytes=compute,
        total_bytes=weights + state + compute + cache,
        basis="header" if all(part.is_known for part in parts) else "guess",
        cache_bytes=cache,
        context_length=own.context_length,
        num_slots=own.num_slots,
        state_per_token=own.state_per_token,
    )


def known_memory(
    entry: ModelEntry,
    load: LoadRequest,
    settings: Settings,
    ledger: MemoryLedger,
    facts: MachineFacts | None = None,
) -> MemoryEstimate:
    """As ``estimate_memory``; with what models.toml says, or an earlier process has taken."""
    found = machine_facts() if facts is None else facts
    estimate = estimate_memory(entry, load, settings, found)
    given = model_options(settings, entry).memory_bytes
    if given is not None:
        return replace(estimate, total_bytes=given, basis="given")
    device = LoadPlan.of(load, settings, found).device(entry.backend)
    measured = _measured(ledger.get(MemoryKey.of(entry, load, settings)), estimate, entry, device)
    if measured is None:
        return estimate
    # Kept prompts are added with their limit: what is reserved must leave room for them.
    total = max(measured, estimate.weights_bytes + estimate.state_bytes) + estimate.cache_bytes
    if measured <= estimate.total_bytes:
        # It had enough. Engines use the whole share that they get, so more would grow each time.
        total = min(total, estimate.total_bytes)
    return replace(estimate, total_bytes=total, basis="measured")


def _measured(
    noted: int | None, estimate: MemoryEstimate, entry: ModelEntry, device: Device
) -> int | None:
    """What a process took without kept prompts, as far as its heartbeats can tell."""
    if noted is None or entry.backend != "llama-cpp":
        return noted
    if device == "metal":  # a mapped file that Metal reads is missing in the footprint
        return noted + estimate.weights_bytes
    return None if device == "cuda" else noted  # llama.cpp does not tell what it has there


def _memory(entry: ModelEntry, plan: LoadPlan) -> ModelMemory:
    try:
        memory = _read(entry.backend, entry.path, fingerprint(entry))(plan)
    except _ODD:
        size = entry.size_bytes
        return ModelMemory(int(_GUESSED_WEIGHTS * size), int(_GUESSED_STATE * size))
    if memory.is_known:
        return memory
    state = memory.state_bytes or int(_GUESSED_STATE * memory.weights_bytes)
    weights = int(_GUESSED_WEIGHTS * memory.weights_bytes)
    return replace(memory, weights_bytes=weights, state_bytes=state)


# Reading a vocabulary takes up to a second, and the supervisor asks each second.
@functools.lru_cache(maxsize=128)
def _read(backend: str, path: Path, _fingerprint: str) -> Callable[[LoadPlan], ModelMemory]:
    """The headers of a model, read once until one of its files changes."""
    if backend == "llama-cpp":
        return functools.partial(gguf_memory, read_gguf_model(path))
    return functools.partial(mlx_memory, read_mlx_folder(path))


def _draft(
    load: LoadRequest, entry: ModelEntry, settings: Settings, plan: LoadPlan
) -> Iterator[ModelMemory]:
    """The memory of the draft model; nothing if there is none of that name."""
    if load.draft_model is not None:
        try:
            draft = find_draft(settings, load.draft_model, entry.backend)
        except JobError:
            return
        yield _memory(draft, plan)


def _adapter_bytes(load: LoadRequest, entry: ModelEntry, settings: Settings) -> int:
    if load.adapter is None:
        return 0
    try:
        return find_adapter(settings.adapters_dir, load.adapter, entry.backend).size_bytes
    except JobError:
        return 0
