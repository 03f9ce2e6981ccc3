"""The KV cells of a context: which sequence holds how many tokens, and where there is room.

``seq_id`` is llama.cpp's id of a sequence.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Sequence as ListLike
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.kv_cells import KvCells

StateBytes = npt.NDArray[np.uint8]
"""A sequence's state as llama.cpp writes it; good for contexts of the same layout."""

_TO_THE_END = -1


class KvMemory(ABC):
    """The sequences of one context, here and in llama.cpp.

    ``longest``: tokens that one sequence can hold. ``is_per_slot``: each slot has its own cells.
    """

    is_per_slot: ClassVar[bool]

    def __init__(self, context: Pointer, num_cells: int, longest: int) -> None:
        self.context = context
        self.num_cells = num_cells
        self.longest = longest
        self.book = KvCells(num_cells)
        self._memory = lib.llama_get_memory(context)

    def close(self) -> None:
        """Free the context; a second time does nothing."""
        context, self.context = self.context, None
        lib.llama_free(context)

    @property
    def num_free(self) -> int:
        """Free cells."""
        return self.book.num_free

    @property
    @abstractmethod
    def num_free_aside(self) -> int:
        """How often ``set_aside`` can be called."""

    @abstractmethod
    def open_seq(self) -> int:
        """An empty sequence to decode into, to be released."""

    @abstractmethod
    def branch(self, source: int, count: int) -> int:
        """A new sequence that begins with the first ``count`` tokens of another one."""

    @abstractmethod
    def is_worth_branching(self, source: int, count: int) -> bool:
        """Whether ``branch`` is sooner done than reading so many tokens."""

    @abstractmethod
    def set_aside(self, seq_id: int) -> int:
        """What a sequence holds under an id that is not decoded, to be released."""

    @abstractmethod
    def take_back(self, seq_id: int) -> int:
        """What was set aside as a sequence to decode into."""

    @abstractmethod
    def num_paddable(self, seq_ids: ListLike[int]) -> int:
        """Rows that a call which reads parts of these may add after each of them."""

    @abstractmethod
    def copy_out(self, seq_id: int) -> StateBytes | None:
        """The state of a sequence as bytes, for ``copy_in``; ``None`` when llama.cpp cannot."""

    @abstractmethod
    def _give_back(self, seq_id: int) -> None:
        """The id is free."""

    def copy_in(self, state: StateBytes, num_tokens: int) -> int | None:
        """A new sequence with a state of ``num_tokens``, for which there must be cells.

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
        self._give_back(seq_id)

    def forget(self, seq_id: int, position: int) -> None:
        """Clear the cells from ``position`` on that are not counted here."""
        lib.llama_memory_seq_rm(self._memory, seq_id, position, _TO_THE_END)

    def _state_of(self, seq_id: int) -> StateBytes | None:
        size = lib.llama_state_seq_get_size(self.context, seq_id)
        state = np.empty(size, np.uint8)
        written = lib.llama_state_seq_get_data(self.context, _bytes_of(state), size, seq_id)
        return state[:written] if written else None


def _bytes_of(array: StateBytes) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
