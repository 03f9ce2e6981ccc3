"""Decodes a few tokens at load, so that late allocations happen then, and asks what memory does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.traits import MemoryTraits
from workers.engines.llama_cpp.load.model_file import load_error

_NUM_TOKENS = 2
_TO_THE_END = -1


def try_memory(path: Path, model: Pointer, memory: KvMemory) -> MemoryTraits:
    """What the empty ``memory`` can do. Raises ``ModelLoadError`` if it cannot decode."""
    seq_id = memory.open_seq()
    _decode(path, memory, seq_id)
    native = lib.llama_get_memory(memory.context)
    traits = MemoryTraits(
        can_idle=_can_idle(memory, native, seq_id),
        can_cut=bool(lib.llama_memory_seq_rm(native, seq_id, _NUM_TOKENS - 1, _TO_THE_END)),
        window=lib.llama_model_n_swa(model),
    )
    # Not by sequence: what cannot be kept under an id cannot be removed under it either.
    lib.llama_memory_clear(native, False)
    memory.release(seq_id)
    return traits


def _decode(path: Path, memory: KvMemory, seq_id: int) -> None:
    llama_log.clear()
    batch = Batch(_NUM_TOKENS)
    batch.add(np.zeros(_NUM_TOKENS, np.int32), 0, seq_id, num_outputs=1)
    status = lib.llama_decode(memory.context, batch.native)
    lib.llama_synchronize(memory.context)
    if status != 0:
        raise load_error(path, "it cannot decode")


def _can_idle(memory: KvMemory, native: Pointer, seq_id: int) -> bool:
    """Whether a copy under an idle id has all tokens: recurrent state is kept for slots only."""
    idle_id = memory.idle_id
    if idle_id is None:
        return True
    lib.llama_memory_seq_cp(native, seq_id, idle_id, 0, _TO_THE_END)
    return bool(lib.llama_memory_seq_pos_max(native, idle_id) == _NUM_TOKENS - 1)
