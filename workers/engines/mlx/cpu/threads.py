"""Sets the number of BLAS threads per product: one for small ones, else as many as cores are free.

BLAS threads wait for each other without sleeping, so one without a core delays all: with other work
on 2 cores, products of 0.05 ms took 4 ms with two threads, but not with one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psutil
from threadpoolctl import ThreadpoolController

from jobs.platform.current import current_platform
from workers.engines.shared.thread_share import ThreadShare

# Multiplications from which on several threads are faster. Weights that do not fit into the CPU
# cache are read faster by two cores, even for few rows, so their limit is lower: 4 rows of a 50 M
# model decoded in 52 ms with 1 million, in 70 ms with 16 million.
_MIN_SHARED = 16_000_000
_MIN_SHARED_UNCACHED = 1_000_000
_CACHED_WEIGHTS = 250_000  # 1 MB


class BlasThreads:
    """Sets BLAS's number of threads, which holds for the whole process."""

    def __init__(self) -> None:
        self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        self._limit = 1
        self._num = 0

    def limit(self, num_threads: int) -> None:
        """Use at most ``num_threads`` from now on."""
        self._limit = num_threads

    def prepare(self, num_multiplications: int, num_weights: int = 0) -> None:
        """Set the threads for the next product: its size, and the size of its weight matrix."""
        is_uncached = num_weights > _CACHED_WEIGHTS
        min_shared = _MIN_SHARED_UNCACHED if is_uncached else _MIN_SHARED
        num = self._limit if num_multiplications >= min_shared else 1
        if num != self._num:
            for library in self._libraries:
                library.set_num_threads(num)
            self._num = num


blas = BlasThreads()
_share = ThreadShare(current_platform().physical_cores(), psutil.cpu_count() or 1)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """A context for a step of the engine; large products use the cores that are free."""
    blas.limit(_share.choose(time.monotonic()))
    yield
    _share.note_step(time.monotonic())
