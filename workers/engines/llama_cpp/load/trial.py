"""Decodes a few tokens at load, so that late allocations happen then, and asks what memory does."""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.contract.errors import ModelLoadError
from workers.engines.failures import DeviceLostError
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.traits import MemoryTraits
from workers.engines.llama_cpp.load.model_file import load_error
from workers.engines.llama_cpp.sampling.scoring import Logits, logits_of

_NUM_TOKENS = 2
_TO_THE_END = -1
_NUM_COMPARED = (4, 5)  # tokens of two texts; some models are wrong only if one is longer
_NOISE = 0.1  # of the distance between two texts; low-bit weights leave about 0.03


class DeviceFailedError(ModelLoadError):
    """The GPU failed in the first decode pass, perhaps because memory is short."""


def try_memory(path: Path, model: Pointer, memory: KvMemory, num_slots: int) -> MemoryTraits:
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
    if traits.can_cut or num_slots == 1:
        return traits
    return replace(traits, can_batch=_can_batch(path, model, memory))


def _can_batch(path: Path, model: Pointer, memory: KvMemory) -> bool:
    """Whether two texts that are read in one pass give what each gives alone."""
    short, long = _NUM_COMPARED
    texts = [np.arange(1, short + 1), np.arange(long, 0, -1)]
    alone = [_read(path, model, memory, [text])[0] for text in texts]
    together = _read(path, model, memory, texts)
    unlike = np.abs(alone[0] - alone[1]).max()
    return all(
        np.abs(one - other).max() <= _NOISE * unlike
        for one, other in zip(alone, together, strict=True)
    )


def _read(
    path: Path, model: Pointer, memory: KvMemory, texts: ListLike[npt.NDArray[Any]]
) -> list[Logits]:
    """The logits after each text, all read in one pass."""
    ends = np.cumsum([len(text) for text in texts])
    batch = Batch(int(ends[-1]))
    seq_ids = [memory.open_seq() for _ in texts]
    for seq_id, text in zip(seq_ids, texts, strict=True):
        batch.add(text.astype(np.int32), 0, seq_id, num_outputs=1)
    _decode_batch(path, memory, batch)
    vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    found = [logits_of(memory.context, int(end) - 1, vocab_size).copy() for end in ends]
    for seq_id in seq_ids:
        memory.release(seq_id)
    return found


def _decode(path: Path, memory: KvMemory, seq_id: int) -> None:
    batch = Batch(_NUM_TOKENS)
    batch.add(np.zeros(_NUM_TOKENS, np.int32), 0, seq_id, num_outputs=1)
    _decode_batch(path, memory, batch)


def _decode_batch(path: Path, memory: KvMemory, batch: Batch) -> None:
    llama_log.clear()
    status = lib.llama_decode(memory.context, batch.native)
    lib.llama_synchronize(memory.context)
    try:
        llama_log.check_device()  # Metal allocates here, and reports a failure only in its log
    except DeviceLostError as error:
        reason = "the GPU failed at its first step, perhaps for memory"
        raise DeviceFailedError(load_error(path, reason).message) from error
    if status != 0:
        raise load_error(path, "it cannot decode")


def _can_idle(memory: KvMemory, native: Pointer, seq_id: int) -> bool:
    """Whether a copy under an idle id has all tokens: recurrent state is kept for slots only."""
    idle_id = memory.idle_id
    if idle_id is None:
        return True
    lib.llama_memory_seq_cp(native, seq_id, idle_id, 0, _TO_THE_END)
    return bool(lib.llama_memory_seq_pos_max(native, idle_id) == _NUM_TOKENS - 1)
