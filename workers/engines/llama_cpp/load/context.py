"""Chooses the number of slots, KV cells and threads of a context, and opens it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from jobs.memory import load_defaults
from jobs.memory.load_defaults import CELLS_UNIT, SCORED_ROWS
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells
from workers.engines.llama_cpp.cache.unified import UnifiedCells
from workers.engines.llama_cpp.load.model_file import load_error
from workers.engines.llama_cpp.load.trial import try_memory

LONGEST_CONTEXT = 1 << 24
BATCH_TOKENS = 2048
PARAMETERS_PER_THREAD = 10_000_000  # for fewer, another thread costs more than it saves
FLASH_ATTENTION = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
KV_TYPES = {4: lib.GGML_TYPE_Q4_0, 8: lib.GGML_TYPE_Q8_0}

_logger = logging.getLogger(__name__)


class NoMemoryError(ModelLoadError):
    """llama.cpp gives the model no memory of a sequence: it is an encoder."""


def open_cells(
    path: Path,
    model: Pointer,
    header: GgufHeader,
    context_length: int,
    options: EngineOptions,
) -> KvMemory:
    """Open a context with ``options.kv_layout``, and try what its memory can do.

    Raises ``ModelLoadError`` if there is no memory for it or the test fails.
    """
    num_slots = num_slots_of(options)
    params = _context_params(model, options)
    memory: KvMemory
    if options.kv_layout == "per_slot":
        max_length = -(-context_length // CELLS_UNIT) * CELLS_UNIT
        params.n_seq_max, params.kv_unified = num_slots, False
        params.n_ctx = max_length * num_slots
        reason = f"no memory for {num_slots} contexts of {context_length} tokens"
        memory = PerSlotCells(_open(path, model, params, reason), max_length, num_slots)
    else:
        num_cells = num_cells_of(header, context_length, num_slots)
        memory = _open_unified(path, model, params, num_cells, context_length, num_slots)
    try:
        memory.traits = try_memory(path, model, memory, num_slots)
    except ModelLoadError:
        memory.close()
        raise
    return memory


def _open_unified(
    path: Path, model: Pointer, params: Any, num_cells: int, context_length: int, num_slots: int
) -> UnifiedCells:
    """With ``num_cells``, or fewer if memory is short, but at least one whole context."""
    params.n_seq_max = num_slots + 1  # one more to copy states out, see unified.py
    params.kv_unified = True
    while True:
        params.n_ctx = num_cells
        reason = f"no memory for a context of {context_length} tokens"
        try:
            return UnifiedCells(_open(path, model, params, reason), num_cells, num_slots)
        except NoMemoryError:
            raise
        except ModelLoadError:
            if num_cells == context_length:
                raise
        num_cells = max(num_cells // 2, context_length)
        _logger.warning("KV cells do not fit, trying fewer", extra={"num_cells": num_cells})


def _open(path: Path, model: Pointer, params: Any, reason: str) -> Pointer:
    llama_log.clear()
    context = lib.llama_init_from_model(model, params)
    if not context:
        raise load_error(path, reason)
    if not lib.llama_get_memory(context):
        lib.llama_free(context)
        raise NoMemoryError(f"{path.name}: the model has no memory, it cannot generate")
    return context


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


def num_slots_of(options: EngineOptions) -> int:
    """How many sequences can run. Raises ``InvalidRequestError`` for an impossible number."""
    num_slots = load_defaults.DEFAULT_SLOTS if options.num_slots is None else options.num_slots
    largest: int = lib.llama_max_parallel_sequences() - 1
    if not 1 <= num_slots <= largest:
        raise InvalidRequestError(f"a GGUF model can have 1 to {largest} slots, not {num_slots}")
    return num_slots


def context_length_of(model: Pointer, options: EngineOptions) -> int:
    """The longest sequence, in tokens. Raises ``InvalidRequestError`` for an impossible length."""
    length = options.context_length
    if length is not None:
        if not 2 <= length <= LONGEST_CONTEXT:
            raise InvalidRequestError(f"a context of {length} tokens is not possible")
        return length
    return load_defaults.context_length(lib.llama_model_n_ctx_train(model), None)


def num_cells_of(header: GgufHeader, context_length: int, num_slots: int) -> int:
    """Number of KV cells that all slots share."""
    original = original_context_of(header)
    return load_defaults.num_shared_cells(context_length, num_slots, original)


def original_context_of(header: GgufHeader) -> int | None:
    """Context length before a model's long-context training, if it has RoPE factors for both."""
    return header.count(f"{header.architecture}.rope.scaling.original_context_length")


def num_threads_of(model: Pointer) -> int:
    """Number of threads by default: no more than a model of this size keeps busy."""
    num_parameters: int = lib.llama_model_n_params(model)
    num_cores = current_platform().physical_cores()
    return max(1, min(num_cores, num_parameters // PARAMETERS_PER_THREAD))


def num_drafts_of(options: EngineOptions) -> int:
    """Tokens to draft per step; 0: no drafting."""
    has_draft_model = options.draft_path is not None
    return load_defaults.num_drafts(options.num_draft_tokens, has_draft_model=has_draft_model)
