"""Which way the KV cells of a model are laid out: a range for each slot, or one pool for all.

Rows of a call pass over all cells of their range, also over those of others, which a CPU does at a
price (0.5 B, 2 cores: a step of 16 sequences of 200 tokens takes 145 ms in ranges, 209 in a pool).
So the cells are in ranges as long as each sequence fits into one, and become a pool for one that
does not. A context is made anew for it, which writes all of its cells once; the sequences go to the
shelf and come back from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path

from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.context import num_slots_of, open_pool, open_ranges
from workers.engines.llama_cpp.memory import KvMemory
from workers.engines.llama_cpp.running import Running

_logger = logging.getLogger(__name__)

_RANGE_UNIT = 256  # llama.cpp rounds ranges up to it
# Writing a new cell takes what 45 rows take that pass over it. Twice that much has to be lost
# before it is done, as nobody knows when the next long sequence comes; and twice as much again
# each time that one came before it was won back.
_PASSES_PER_CELL = 90
_LONGEST_PATIENCE = 64
_FORESEEN = 256  # tokens that a sequence is reckoned with, however many it may generate


class Layout:
    """Holds the memory as it is laid out now."""

    def __init__(
        self,
        path: Path,
        model: Pointer,
        num_cells: int,
        context_length: int,
        options: EngineOptions,
        *,
        may_have_ranges: bool,
        has_fours: bool,
    ) -> None:
        self._path = path
        self._model = model
        self._context_length = context_length
        self._options = options
        self._has_fours = has_fours
        self._num_cells = num_cells
        self._patience = 1
        self._range_length = 0
        if may_have_ranges:
            self._range_length = _range_length(num_cells, num_slots_of(options), context_length)
        self.memory: KvMemory = self._open_ranges() or self._open_pool()
        # Rows over cells of others: made by a pool, saved by ranges. That they do not last is not
        # held against the first ones.
        self._num_passes = self._price if self.memory.has_ranges else 0.0

    @property
    def num_pool_cells(self) -> int:
        """Cells that a pool has."""
        return self._num_cells

    def wants_ranges(self) -> bool:
        """Whether the pool has cost more than making ranges of it does."""
        is_pool = self._range_length > 0 and not self.memory.has_ranges
        return is_pool and self._num_passes >= self._patience * self._price

    def note_decoded(self, decoded: Collection[Running], all_runs: Collection[Running]) -> None:
        """A call has decoded a row of each of ``decoded``; ``all_runs`` are there, or wait."""
        if self._range_length == 0:
            return
        if self.memory.has_ranges:
            num_others = len(decoded) - 1
            self._num_passes += num_others * sum(run.num_in_cache for run in decoded)
            return
        if not all(self._would_fit(run) for run in all_runs):
            self._num_passes = 0
            return
        num_used = self.memory.num_cells - self.memory.num_free
        self._num_passes += sum(num_used - run.num_in_cache for run in decoded)

    def switch(self) -> None:
        """The other layout, which holds nothing yet; ``ModelLoadError`` when there is no room."""
        started = time.monotonic()
        had_ranges = self.memory.has_ranges
        self.close()
        if had_ranges:
            is_won_back = self._num_passes >= self._price
            self._patience = 1 if is_won_back else min(2 * self._patience, _LONGEST_PATIENCE)
        self._num_passes = 0
        self.memory = (None if had_ranges else self._open_ranges()) or self._open_pool()
        facts = {"has_ranges": self.memory.has_ranges, "seconds": time.monotonic() - started}
        _logger.info("KV cells laid out anew", extra=facts)

    def close(self) -> None:
        """Free the context; a second time does nothing."""
        context, self.memory.context = self.memory.context, None
        lib.llama_free(context)

    @property
    def _price(self) -> float:
        return _PASSES_PER_CELL * self._num_cells

    def _would_fit(self, run: Running) -> bool:
        return run.num_known + min(run.num_open, _FORESEEN) <= self._range_length

    def _open_ranges(self) -> KvMemory | None:
        if self._range_length == 0:
            return None
        options, has_fours = self._options, self._has_fours
        ranges = open_ranges(self._model, self._range_length, options, has_fours=has_fours)
        if ranges is None:
            self._range_length = 0  # a pool can be smaller
        return ranges

    def _open_pool(self) -> KvMemory:
        pool = open_pool(
            self._path,
            self._model,
            self._num_cells,
            self._context_length,
            self._options,
            has_fours=self._has_fours,
        )
        self._num_cells = pool.num_cells
        return pool


def _range_length(num_cells: int, num_slots: int, context_length: int) -> int:
    """Cells for each slot; 0 where they would be too few to be of use."""
    if context_length * num_slots <= num_cells:
        return -(-context_length // _RANGE_UNIT) * _RANGE_UNIT
    return num_cells // num_slots // _RANGE_UNIT * _RANGE_UNIT
