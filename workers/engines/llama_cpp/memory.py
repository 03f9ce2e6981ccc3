"""The KV pool of a context: which sequence holds how many tokens, and how many cells are free.

``seq_id`` is llama.cpp's id of a sequence. Its sequences share cells for a common beginning, which
costs nothing: only the cells' list of owners changes. A context decodes the ids below its number of
slots; the others, of which a unified cache always has 256, serve to keep what has ended.
"""

from __future__ import annotations

import ctypes
import heapq
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.new_pages import new_bytes

NUM_SEQ_IDS = 256  # LLAMA_MAX_SEQ
_TO_THE_END = -1


class CellBook:
    """Cells by ``seq_id``, shared ones counted once.

    llama.cpp tells nobody how many cells are free, and a decode that finds none fails for all of
    its sequences; so they are counted here, as it counts them.
    """

    def __init__(self, num_cells: int) -> None:
        self._free = list(range(num_cells))
        self._num_owners = np.zeros(num_cells, np.int32)
        self._cells: dict[int, list[int]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    def length(self, seq_id: int) -> int:
        """Tokens that the sequence holds."""
        return len(self._cells.get(seq_id, ()))

    def cells(self, seq_id: int) -> list[int]:
        """The sequence's cells, in the order of its tokens."""
        return self._cells.get(seq_id, [])

    def num_own(self, seq_id: int) -> int:
        """How many of the sequence's cells nobody shares."""
        return int((self._num_owners[self.cells(seq_id)] == 1).sum())

    def extend(self, seq_id: int, count: int) -> None:
        """``count`` more tokens, each in a free cell."""
        first = len(self._free) - count
        assert first >= 0, "more tokens than free cells"
        taken = self._free[first:]
        del self._free[first:]
        self._num_owners[taken] = 1
        self._cells.setdefault(seq_id, []).extend(taken)

    def share(self, source: int, target: int, count: int) -> None:
        """The first ``count`` tokens of ``source`` belong to the empty ``target`` too."""
        shared = self._cells[source][:count]
        self._num_owners[shared] += 1
        self._cells[target] = shared

    def truncate(self, seq_id: int, count: int) -> None:
        """The sequence keeps its first ``count`` tokens."""
        cells = self._cells.get(seq_id, [])
        dropped = np.asarray(cells[count:], np.intp)
        del cells[count:]
        self._num_owners[dropped] -= 1
        self._free.extend(dropped[self._num_owners[dropped] == 0].tolist())


class KvMemory:
    """The sequences of one context, here and in llama.cpp."""

    def __init__(self, context: Pointer, num_cells: int, num_slots: int) -> None:
        self.context = context
        self.num_cells = num_cells
        self.book = CellBook(num_cells)
        self._memory = lib.llama_get_memory(context)
        self._num_slots = num_slots
        self._free_seq_ids = list(range(num_slots))
        # llama.cpp only decodes, and copies out, ids below n_seq_max: the slots and this one.
        self._gangway = num_slots
        self._free_shelves = list(range(num_slots + 1, NUM_SEQ_IDS))

    @property
    def num_free(self) -> int:
        """Free cells."""
        return self.book.num_free

    @property
    def spare_id(self) -> int:
        """A sequence to decode rows into that nobody wants; ``clear_spare`` forgets them."""
        return self._gangway

    def clear_spare(self) -> None:
        lib.llama_memory_seq_rm(self._memory, self._gangway, 0, _TO_THE_END)

    @property
    def num_free_shelves(self) -> int:
        """How often ``set_aside`` can be called."""
        return len(self._free_shelves)

    def open_seq(self) -> int:
        """An empty sequence to decode into, to be released."""
        return heapq.heappop(self._free_seq_ids)

    def branch(self, source: int, count: int) -> int:
        """A new sequence that begins with the first ``count`` tokens of another one."""
        seq_id = self.open_seq()
        self._copy(source, seq_id, count)
        return seq_id

    def set_aside(self, seq_id: int) -> int:
        """Move what a sequence holds to one that is not decoded, to be released."""
        shelf = heapq.heappop(self._free_shelves)
        self._copy(seq_id, shelf, self.book.length(seq_id))
        self.release(seq_id)
        return shelf

    def copy_out(self, seq_id: int) -> npt.NDArray[np.uint8] | None:
        """The state of a sequence as bytes, for ``copy_in``; ``None`` when llama.cpp cannot."""
        lib.llama_memory_seq_cp(self._memory, seq_id, self._gangway, 0, self.book.length(seq_id))
        size = lib.llama_state_seq_get_size(self.context, self._gangway)
        state = new_bytes(size)
        written = lib.llama_state_seq_get_data(self.context, _bytes_of(state), size, self._gangway)
        self.clear_spare()
        return state[:written] if written else None

    def copy_in(self, state: npt.NDArray[np.uint8], num_tokens: int) -> int | None:
        """A new sequence with a state of ``num_tokens`` tokens, for which there must be free cells.

        ``None`` when llama.cpp refuses it.
        """
        seq_id = self.open_seq()
        size = len(state)
        if not lib.llama_state_seq_set_data(self.context, _bytes_of(state), size, seq_id):
            self.release(seq_id)
            return None
        self.book.extend(seq_id, num_tokens)
        return seq_id

    def note_decoded(self, seq_id: int, count: int) -> None:
        """A decode has put ``count`` more tokens into the sequence."""
        self.book.extend(seq_id, count)

    def truncate(self, seq_id: int, count: int) -> bool:
        """Keep the first ``count`` tokens, also of what a failed decode left there.

        False when the model's memory cannot forget a part; then nothing has changed.
        """
        if not lib.llama_memory_seq_rm(self._memory, seq_id, count, _TO_THE_END):
            return False
        self.book.truncate(seq_id, count)
        return True

    def release(self, seq_id: int) -> None:
        """The sequence is empty and free; forgetting all of it always works."""
        lib.llama_memory_seq_rm(self._memory, seq_id, 0, _TO_THE_END)
        self.book.truncate(seq_id, 0)
        heapq.heappush(
            self._free_seq_ids if seq_id < self._num_slots else self._free_shelves, seq_id
        )

    def _copy(self, source: int, target: int, count: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, count)
        self.book.share(source, target, count)


def _bytes_of(array: npt.NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
