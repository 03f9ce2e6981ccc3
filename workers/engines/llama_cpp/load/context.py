"""Opens a context with as many KV cells as memory has, and chooses its threads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InsufficientMemoryError, ModelLoadError
from jobs.memory import load_defaults
from jobs.memory.load_defaults import SCORED_ROWS
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells
from workers.engines.llama_cpp.cache.unified import UnifiedCells
from workers.engines.llama_cpp.load.cell_plan import (
    CellPlan,
    ContextCost,
    fit_cells,
    num_slots_of,
    plan_cells,
    shortage,
)
from workers.engines.llama_cpp.load.model_file import load_error
from workers.engines.llama_cpp.load.trial import DeviceFailedError, try_memory

BATCH_TOKENS = 2048
PARAMETERS_PER_THREAD = 10_000_000  # for fewer, another thread costs more than it saves
FLASH_ATTENTION = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
KV_TYPES = {4: lib.GGML_TYPE_Q4_0, 8: lib.GGML_TYPE_Q8_0}
_MEASURED_CELLS = 512  # per slot with cells of its own; llama.cpp plans passes of 512 tokens

_logger = logging.getLogger(__name__)


class NoMemoryError(ModelLoadError):
    """llama.cpp gives the model no memory of a sequence: it is an encoder."""


class NoContextError(ModelLoadError):
    """llama.cpp cannot make a context, mostly because memory is short."""


@dataclass(frozen=True, slots=True)
class OpenedCells:
    """An open context with the plan that it follows, and its size.

    ``cost``: what one with more or fewer cells would take; only about that without a limit.
    """

    memory: KvMemory
    plan: CellPlan
    num_bytes: int
    cost: ContextCost


def open_cells(
    path: Path,
    model: Pointer,
    header: GgufHeader,
    options: EngineOptions,
    *,
    context_length: int | None = None,
    room_bytes: int | None = None,
) -> OpenedCells:
    """Open a context with ``options.kv_layout``, and try what its memory can do.

    With fewer cells or slots if memory is short, but at least one whole context. ``room_bytes``:
    what it may take; ``None``: no limit. Raises ``InsufficientMemoryError`` if it needs more,
    ``ModelLoadError`` if llama.cpp refuses it or the trial fails.
    """
    params = _context_params(model, options)
    plan = plan_cells(model, header, options, context_length)
    measured = None
    if room_bytes is not None:
        measured = _measure(path, model, params, plan)
        plan = fit_cells(plan, model, header, measured, room_bytes)
    while True:
        try:
            memory, cost = _open_tried(path, model, params, plan, room_bytes)
            return OpenedCells(memory, plan, cost.bytes_for(plan.num_cells), measured or cost)
        except (InsufficientMemoryError, DeviceFailedError, NoContextError) as error:
            # Metal allocates when it computes first: then the trial fails.
            smaller = plan.smaller()
            if smaller is None:
                raise
            plan, why = smaller, error.message
        _logger.warning(
            "KV cells do not fit, trying fewer", extra={"num_cells": plan.num_cells, "why": why}
        )


def _open_tried(
    path: Path, model: Pointer, params: Any, plan: CellPlan, room_bytes: int | None
) -> tuple[KvMemory, ContextCost]:
    context, cost = _open(path, model, params, plan)
    num_bytes = cost.bytes_for(plan.num_cells)
    if room_bytes is not None and num_bytes > room_bytes:
        lib.llama_free(context)
        raise shortage(plan, num_bytes, room_bytes)
    memory: KvMemory
    if plan.is_per_slot:
        memory = PerSlotCells(context, plan.num_cells // plan.num_slots, plan.num_slots)
    else:
        memory = UnifiedCells(context, plan.num_cells, plan.num_slots)
    try:
        memory.traits = try_memory(path, model, memory, plan.num_slots)
    except ModelLoadError:
        memory.close()
        raise
    return memory, cost


def _measure(path: Path, model: Pointer, params: Any, plan: CellPlan) -> ContextCost:
    """What cells cost, those of passes included: from two contexts with few of them."""
    unit = _MEASURED_CELLS * (plan.num_slots if plan.is_per_slot else 1)
    costs = []
    for num_cells in (unit, 2 * unit):
        context, cost = _open(path, model, params, replace(plan, num_cells=num_cells))
        lib.llama_free(context)
        costs.append(cost)
    few, more = costs
    passes = max(more.other_bytes - few.other_bytes, 0)
    return ContextCost(more.cell_bytes + passes / unit, few.other_bytes - passes)


def _open(path: Path, model: Pointer, params: Any, plan: CellPlan) -> tuple[Pointer, ContextCost]:
    # One id more to copy states out, see unified.py.
    params.n_seq_max = plan.num_slots if plan.is_per_slot else plan.num_slots + 1
    params.kv_unified = not plan.is_per_slot
    params.n_ctx = plan.num_cells
    llama_log.clear()
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise NoContextError(load_error(path, f"no memory for {plan.text()}").message)
    if not lib.llama_get_memory(context):
        lib.llama_free(context)
        raise NoMemoryError(f"{path.name}: the model has no memory, it cannot generate")
    cost = ContextCost(llama_log.cell_bytes() / plan.num_cells, llama_log.other_bytes())
    return context, cost


def _context_params(model: Pointer, options: EngineOptions) -> Any:
    num_slots = num_slots_of(options)
    num_threads = options.num_threads or num_threads_of(model)
    params: Any = lib.llama_context_default_params()
    params.n_batch = BATCH_TOKENS
    # Only one row per sequence needs logits: a buffer for every prompt token would take 300 MB
    # with a vocabulary of 150,000.
    params.n_outputs_max = num_slots * (1 + num_drafts_of(options)) + SCORED_ROWS
    params.n_threads = num_threads
    params.n_threads_batch = num_threads
    params.flash_attn_type = FLASH_ATTENTION
    if options.num_gpu_layers == 0:  # else products of many rows go to the GPU all the same
        params.op_offload = False
    if options.kv_bits is not None:
        params.type_k = params.type_v = KV_TYPES[options.kv_bits]
    return params


def num_threads_of(model: Pointer) -> int:
    """Number of threads by default: no more than a model of this size keeps busy."""
    num_parameters: int = lib.llama_model_n_params(model)
    num_cores = current_platform().physical_cores()
    return max(1, min(num_cores, num_parameters // PARAMETERS_PER_THREAD))


def num_drafts_of(options: EngineOptions) -> int:
    """Tokens to draft per step; 0: no drafting."""
    has_draft_model = options.draft_path is not None
    return load_defaults.num_drafts(options.num_draft_tokens, has_draft_model=has_draft_model)
