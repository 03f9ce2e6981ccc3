"""Giving back the pages of a mapped model file that only the loading has touched.

On a CPU llama.cpp copies most weights into a layout of its own and keeps the file mapped, so the
process seems to hold the model twice. What is used again comes back from the page cache by itself.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Collection
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+\s+(/.*)")
_MADV_DONTNEED = 4  # Linux: forget the pages; a file's mapping stays valid


def release(files: Collection[Path]) -> None:
    """Linux only; elsewhere nothing happens (Metal uses the mapped pages themselves)."""
    if sys.platform != "linux":
        return
    names = {str(file.resolve()) for file in files}
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = _MAPPING.fullmatch(line)
        if found is not None and found[3] in names:
            start, end = int(found[1], 16), int(found[2], 16)
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
