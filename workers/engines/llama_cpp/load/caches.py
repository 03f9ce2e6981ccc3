"""The prompt cache of a loaded model: which part is kept in the KV cells, and the host cache."""

from __future__ import annotations

import functools
from pathlib import Path

from jobs.catalog.catalog import find_adapter
from jobs.catalog.gguf_header import GgufHeader
from jobs.memory import load_defaults
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import LIBRARY_VERSION
from workers.engines.llama_cpp.cache.host_cache import MIN_TOKENS, HostCache
from workers.engines.llama_cpp.load.context import OpenedCells
from workers.engines.llama_cpp.load.model_file import files_of
from workers.engines.llama_cpp.load.room import is_on_cpu
from workers.engines.shared.identity import digest_of
from workers.engines.shared.spill import Spill

BACKEND = "llama-cpp"


def num_kept_cells(cells: OpenedCells, options: EngineOptions, rest_bytes: int | None) -> int:
    """KV cells for kept prefixes.

    Shared cells of a CPU keep only few, because idle cells slow every step there: unless the host
    cache, which has ``rest_bytes``, could not hold a whole context.
    """
    memory, max_bytes = cells.memory, prompt_cache_bytes(options, rest_bytes)
    if options.prompt_cache_bytes == 0:
        return 0
    longest = cells.cost.cell_bytes * cells.plan.context_length
    is_cramped = rest_bytes is not None and rest_bytes < longest
    if memory.is_per_slot or not memory.traits.can_idle or not is_on_cpu(options) or is_cramped:
        return memory.num_cells
    return min(memory.num_cells // 4, int(max_bytes / max(cells.cost.cell_bytes, 1)))


def prompt_cache_bytes(options: EngineOptions, rest_bytes: int | None) -> int:
    """About how much the host cache takes of ``rest_bytes``, or without a limit of the memory."""
    if options.prompt_cache_bytes is not None:
        return options.prompt_cache_bytes
    if rest_bytes is not None:
        return max(rest_bytes, 0)
    memory = current_platform().usable_memory_bytes()
    return load_defaults.prompt_cache_bytes(BACKEND, None, memory)


def open_host_cache(
    path: Path,
    header: GgufHeader,
    cells: OpenedCells,
    options: EngineOptions,
    rest_bytes: int | None,
) -> HostCache | None:
    """The host cache; ``None`` if there is to be no prompt cache."""
    max_bytes = prompt_cache_bytes(options, rest_bytes)
    if max_bytes == 0:
        return None
    identity = _identity(path, header, options, cells.plan.num_slots)

    @functools.cache
    def identity_of(adapter: str | None) -> str:
        if adapter is None:
            return identity
        file = find_adapter(options.adapters_dir, adapter, BACKEND).path
        return f"{identity}:{digest_of([file])}"

    folder = options.prompt_cache_dir
    spill = None if folder is None else Spill(folder, identity, MIN_TOKENS)
    return HostCache(
        cells.memory, max_bytes, identity_of, spill=spill, largest_bytes=options.prompt_cache_bytes
    )


def _identity(path: Path, header: GgufHeader, options: EngineOptions, num_slots: int) -> str:
    facts: list[object] = [LIBRARY_VERSION, options.kv_bits]
    if options.kv_layout == "per_slot":  # a state contains the number of slots
        facts += [options.kv_layout, num_slots]
    return digest_of(files_of(path, header), *facts)
