"""Which way the KV cells of a model are laid out: a range for each slot, or one pool for all.

In a pool the rows of a call pass over the cells of others, which a CPU does at a price (0.5 B, 2
cores: a step of 16 sequences of 200 tokens takes 209 ms in a pool, 145 in ranges). In ranges there
is a copy of a common beginning for each, which comes from memory for each, while a pool's is read
for all at once (8 sequences of 170 tokens: of 99 and 107 ms with 100 more in common, 172 and 147
with 400, 484 and 287 with 1,500). And a sequence that is longer than a range needs a pool.

So they are in ranges until a sequence is too long for one, or begins like another one that runs,
and in a pool until that has cost more than a change does. A context is made anew for it, which
writes all of its cells once; the sequences go to the shelf and come back from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path

from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.pool import Pool
from workers.engines.llama_cpp.load.context import num_slots_of, open_pool, open_ranges

_logger = logging.getLogger(__name__)

_RANGE_UNIT = 256  # llama.cpp rounds ranges up to it
# All in rows that pass over a cell of others. Writing a new cell takes as long as 45 of them; twice
# as much is lost before it is done, as nobody knows what comes next, and twice as much again each
# time that ranges did not last long enough to win it back.
_PASSES_PER_CELL = 90
_PASSES_PER_COPY = 8  # a row over a cell that is a copy of another one's
_LONGEST_PATIENCE = 64
_STEPS_PER_LOOK = 16


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
        self._num_steps = 0
        self._range_length = 0
        if may_have_ranges:
            self._range_length = _range_length(num_cells, num_slots_of(options), context_length)
        self.memory: KvMemory = self._open_ranges() or self._open_pool()
        self._num_lost = 0.0
        self._num_won = self._price  # that they do not last is not held against the first ones

    @property
    def num_pool_cells(self) -> int:
        """Cells that a pool has."""
        return self._num_cells

    @property
    def wants_ranges(self) -> bool:
        """Whether the pool has cost more than a change does."""
        return self._num_lost >= self._patience * self._price

    def note_decoded(self, decoded: Collection[Running], all_runs: Collection[Running]) -> None:
        """A call has decoded a row of each of ``decoded``; ``all_runs`` are there, or wait."""
        self._num_steps += 1
        if self._range_length == 0 or self._num_steps % _STEPS_PER_LOOK:
            return
        total = sum(run.num_in_cache for run in decoded)
        if not isinstance(self.memory, Pool):
            self._num_won += (len(decoded) - 1) * total * _STEPS_PER_LOOK
        elif all(self._would_fit(run) for run in all_runs):
            # What is kept for nobody yet does not count: it leaves when it has been in the way.
            num_shared = self.memory.num_shared([run.seq_id for run in decoded])
            lost = len(decoded) * (total - num_shared) - total - _PASSES_PER_COPY * num_shared
            self._num_lost = max(0.0, self._num_lost + lost * _STEPS_PER_LOOK)
        else:
            self._num_lost = 0.0

    def switch(self) -> None:
        """The other layout, which holds nothing yet; ``ModelLoadError`` when there is no room."""
        started = time.monotonic()
        had_ranges = self.memory.has_ranges
        self.close()
        if had_ranges:
            is_won_back = self._num_won >= self._price
            self._patience = 1 if is_won_back else min(2 * self._patience, _LONGEST_PATIENCE)
        self._num_lost = self._num_won = 0.0
        self.memory = (None if had_ranges else self._open_ranges()) or self._open_pool()
        seconds = round(time.monotonic() - started, 3)
        facts = {"has_ranges": self.memory.has_ranges, "seconds": seconds}
        _logger.info("KV cells laid out anew", extra=facts)

    def close(self) -> None:
        """Free the context; a second time does nothing."""
        context, self.memory.context = self.memory.context, None
        lib.llama_free(context)

    @property
    def _price(self) -> float:
        return _PASSES_PER_CELL * self._num_cells

    def _would_fit(self, run: Running) -> bool:
        return run.num_tokens + run.expected_output <= self._range_length

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
