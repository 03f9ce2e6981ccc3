"""How many threads NumPy's BLAS takes for a product: few for small ones, none that others need.

Its threads wait for each other without sleeping, so one that has no core holds all up: with other
work on 2 cores, products of 0.05 ms took 4 ms with two threads, and no longer with one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil
from threadpoolctl import ThreadpoolController

from workers.engines.shared.thread_share import ThreadShare, physical_cores

# Multiplications from which on a second thread is worth waking. Of weights that no cache holds, two
# cores read faster than one however few rows there are: 4 rows of a 50 M model decoded in 70 ms
# with 16 million for them too, in 52 with one.
_WORTH_SHARING = 16_000_000
_WORTH_SHARING_READING = 1_000_000
_CACHED_WEIGHTS = 250_000  # 1 MB


class BlasThreads:
    """Sets the number of threads where it changes: for the process, as the library has it."""

    def __init__(self) -> None:
        self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self._most = 1
        self._num = 0

    def allow(self, num_threads: int) -> None:
        """So many at most from now on."""
        self._most = num_threads

    def prepare(self, num_multiplications: int, num_weights: int = 0) -> None:
        """A product of that size comes next, by a matrix of so many weights."""
        is_reading = num_weights > _CACHED_WEIGHTS
        worth = _WORTH_SHARING_READING if is_reading else _WORTH_SHARING
        num = self._most if num_multiplications >= worth else 1
        if num != self._num:
            for library in self._libraries:
                library.set_num_threads(num)
            self._num = num


blas = BlasThreads()
_share = ThreadShare(physical_cores(), psutil.cpu_count() or 1)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """A step of the engine: its large products get the cores that nobody else is using."""
    blas.allow(_share.choose(time.monotonic()))
    yield
    _share.note_step(time.monotonic())
