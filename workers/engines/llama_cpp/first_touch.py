"""The first row of a context, decoded while the model loads, and the memory that rows need.

Whoever asks first would wait for it: the pages of a call's intermediate results cost ten
microseconds each when they are touched for the first time, or more where a virtual machine's free
memory is its host's. A prompt of 170 tokens (0.5 B) touches 18 MB: 640 instead of 700 ms without.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.binding import lib, native_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.load.model_file import load_error

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ 00:00 0 *")
_LEAST_BYTES = 1 << 20
_MADV_HUGEPAGE, _MADV_POPULATE_WRITE = 14, 23  # Linux; the second since 5.14

Region = tuple[int, int]
"""Where it begins, and where the next one may."""


def decode_first_row(path: Path, memory: KvMemory, before: Collection[Region]) -> None:
    """Decode a row and forget it; ``ModelLoadError`` if that fails.

    ``before``: ``private_regions`` before the context was made. Of what has come since, the row
    touches a little of the memory for intermediate results, and nothing of that for the logits of
    many rows: so what it has touched anything of is touched as a whole.
    """
    holes = [hole for region in _added(before) for hole in _untouched(region)]
    native_log.clear()
    seq_id = memory.open_seq()
    batch = Batch(1)
    batch.add_token(0, 0, seq_id)
    status = lib.llama_decode(memory.context, batch.native)
    lib.llama_synchronize(memory.context)
    memory.release(seq_id)
    if status != 0:
        raise load_error(path, "it cannot decode")
    for hole in holes:
        if _resident(hole).any():
            _touch(hole)


def private_regions() -> frozenset[Region]:
    """Memory of this process that is in no file. Linux only; elsewhere none is known."""
    if sys.platform != "linux":
        return frozenset()
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = filter(None, map(_MAPPING.fullmatch, lines))
    return frozenset((int(match[1], 16), int(match[2], 16)) for match in found)


def _added(before: Collection[Region]) -> list[Region]:
    """What of ``private_regions`` is in none of ``before``; the system joins neighbours."""
    added = []
    for start, end in private_regions():
        for old_start, old_end in sorted(before):
            if start < old_end and old_start < end:
                added.append((start, old_start))
                start = old_end
        added.append((start, end))
    return [(start, end) for start, end in added if end - start >= _LEAST_BYTES]


def _untouched(region: Region) -> list[Region]:
    """Large parts without any memory behind them yet."""
    is_there = _resident(region)
    edges = np.flatnonzero(np.diff(is_there, prepend=True, append=True))
    bounds = (region[0] + edges * mmap.PAGESIZE).reshape(-1, 2).tolist()
    return [(start, end) for start, end in bounds if end - start >= _LEAST_BYTES]


def _resident(region: Region) -> npt.NDArray[np.bool_]:
    """Of each page, whether it is there; all are, where the system does not tell."""
    start, end = region
    pages = np.ones((end - start) // mmap.PAGESIZE, np.uint8)
    told = _libc().mincore(
        ctypes.c_void_p(start), ctypes.c_size_t(end - start), pages.ctypes.data_as(ctypes.c_void_p)
    )
    return (pages & 1).astype(bool) if told == 0 else np.ones(len(pages), bool)


def _touch(region: Region) -> None:
    """In huge pages where the system has some; an older one does it when they are needed."""
    start, end = region
    for advice in (_MADV_HUGEPAGE, _MADV_POPULATE_WRITE):
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
