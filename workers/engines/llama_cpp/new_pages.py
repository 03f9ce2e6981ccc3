"""Memory for states that leave the KV pool: milliseconds that all who wait for a step pay.

Copying is a small part of it, the first touch of each page is most. numpy asks for huge pages,
which on a virtual machine whose free memory is its host's are the dearest there are. Milliseconds
for a state of 28 MB, 2 cores: 60 by numpy, 15 in small pages, 10.5 in those if two threads touch
them first; 40 to 50 where all that is free has gone to the host.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np
import numpy.typing as npt

_TOUCHED_BY_TWO = 4 << 20  # bytes; for less a thread is not worth its start


def new_bytes(size: int) -> npt.NDArray[np.uint8]:
    """Zeroes in memory of their own, which goes back to the system with the array."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data = np.frombuffer(pages, np.uint8)
    if size >= _TOUCHED_BY_TWO:
        half = size // 2
        other = threading.Thread(target=_touch, args=(data[half:],))
        other.start()
        _touch(data[:half])
        other.join()
    return data


def _touch(data: npt.NDArray[np.uint8]) -> None:
    data[:: mmap.PAGESIZE] = 0  # numpy lets go of the GIL for it
