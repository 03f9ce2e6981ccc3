"""The KV cells of a context and the sequences in them; ``seq_id`` is llama.cpp's sequence id."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as ListLike
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.kv_cells import KvCells
from workers.engines.llama_cpp.cache.traits import MemoryTraits

StateBytes = npt.NDArray[np.uint8]
"""A sequence's state as llama.cpp serializes it; it fits contexts with the same KV layout."""

Allow = Callable[[int], bool]

_TO_THE_END = -1


class KvMemory(ABC):
    """The sequences of one context; changes are made in llama.cpp and noted here.

    ``max_length``: tokens that one sequence can hold. ``is_per_slot``: each slot has its own cells.
    ``idle_id``: an id that is not decoded, if there are such. ``traits`` are found out at load.
    """

    is_per_slot: ClassVar[bool]
    idle_id: int | None = None

    def __init__(self, context: Pointer, num_cells: int, max_length: int) -> None:
        self.context = context
        self.num_cells = num_cells
        self.max_length = max_length
        self.cells = KvCells(num_cells)
        self.traits = MemoryTraits()
        self._memory = lib.llama_get_memory(context)

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        context, self.context = self.context, None
        lib.llama_free(context)

    @property
    def num_free(self) -> int:
        """Number of free cells."""
        return self.cells.num_free

    @property
    @abstractmethod
    def num_free_kept_ids(self) -> int:
        """How many more sequences ``keep`` accepts."""

    @abstractmethod
    def open_seq(self) -> int:
        """Open an empty sequence that can be decoded; the caller has to ``release`` it."""

    @abstractmethod
    def branch(self, source: int, count: int) -> int:
        """Open a sequence that begins with the first ``count`` tokens of ``source``."""

    @abstractmethod
    def is_worth_branching(self, source: int, count: int) -> bool:
        """Whether ``branch`` is faster than prefill of ``count`` tokens."""

    def can_branch(self, source: int, count: int) -> bool:
        """Whether ``branch`` gives the state of the first ``count`` tokens."""
        return self.can_cut(source, count)

    def can_cut(self, seq_id: int, count: int) -> bool:
        """Whether the sequence's state, cut to ``count`` tokens, is the state of these tokens now.

        With a sliding window: whether the window before the next token is still complete.
        """
        if not self.traits.can_cut:
            return count == self.cells.length(seq_id)
        if self.traits.window == 0:
            return True
        first = lib.llama_memory_seq_pos_min(self._memory, seq_id)
        return bool(first <= max(0, count + 1 - self.traits.window))

    @abstractmethod
    def keep(self, seq_id: int) -> int:
        """Move a sequence to an id that is not decoded; returns that id, to be released."""

    @abstractmethod
    def resume(self, seq_id: int) -> int:
        """Move a kept sequence to an id that can be decoded; returns that id."""

    @abstractmethod
    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        """Limit of the rows per sequence, padding included, in a prefill of these sequences."""

    @abstractmethod
    def copy_out(self, seq_id: int, allow: Allow | None = None) -> StateBytes | None:
        """The state of a sequence as bytes, for ``copy_in``; ``None`` if llama.cpp refuses.

        ``allow(num_bytes)`` is asked before memory for it is taken.
        """

    @abstractmethod
    def _free_id(self, seq_id: int) -> None:
        """Mark the id as free."""

    def copy_in(self, state: StateBytes, num_tokens: int) -> int | None:
        """Open a sequence with a state of ``num_tokens``; there must be free cells for it.

        ``None`` if llama.cpp refuses the state.
        """
        seq_id = self.open_seq()
        size = len(state)
        if not lib.llama_state_seq_set_data(self.context, _bytes_of(state), size, seq_id):
            self.release(seq_id)
            return None
        self.cells.extend(seq_id, num_tokens)
        return seq_id

    def note_decoded(self, seq_id: int, count: int) -> None:
        """Note that a decode pass has added ``count`` tokens to the sequence."""
        self.cells.extend(seq_id, count)

    def truncate(self, seq_id: int, count: int) -> bool:
        """Keep only the first ``count`` tokens; also removes what a failed decode pass left there.

        False, with nothing changed, if the model's memory cannot be cut there.
        """
        if self.traits.window and not self.can_cut(seq_id, count):
            return False  # llama.cpp would cut it, and go on without a part of the window
        if not lib.llama_memory_seq_rm(self._memory, seq_id, count, _TO_THE_END):
            return False
        self.cells.truncate(seq_id, count)
        return True

    def release(self, seq_id: int) -> None:
        """Empty the sequence and free its id; removing a whole sequence always works."""
        lib.llama_memory_seq_rm(self._memory, seq_id, 0, _TO_THE_END)
        self.cells.truncate(seq_id, 0)
        self._free_id(seq_id)

    def remove_uncounted(self, seq_id: int, position: int) -> None:
        """Remove tokens from ``position`` on that are not counted here."""
        lib.llama_memory_seq_rm(self._memory, seq_id, position, _TO_THE_END)

    def _state_of(self, seq_id: int, allow: Allow | None) -> StateBytes | None:
        size = lib.llama_state_seq_get_size(self.context, seq_id)
        if allow is not None and not allow(size):
            return None
        state = np.empty(size, np.uint8)
        written = lib.llama_state_seq_get_data(self.context, _bytes_of(state), size, seq_id)
        return state[:written] if written else None


def _bytes_of(array: StateBytes) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
