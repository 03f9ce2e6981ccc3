"""The bytes of a sequence's state, as llama.cpp writes them, from one layout to another.

``magic, seq_id, number of ranges``, for each range a number of cells, of which only that of the
sequence's own is not 0, and after that one the cells. llama.cpp refuses a state from a context with
another number of ranges; which of them holds the cells it does not care about.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.new_pages import new_bytes

StateBytes = npt.NDArray[np.uint8]

_WORD = 4
_HEAD = 2 * _WORD  # magic and seq_id
_COUNTS = _HEAD + _WORD


def num_ranges_of(state: StateBytes) -> int:
    """Ranges of the context that has written the state; a pool is one."""
    return int(_words(state, _HEAD, 1)[0])


def for_pool(state: StateBytes) -> StateBytes:
    """The state for a context of one range: within the same memory, which it changes."""
    num_ranges = num_ranges_of(state)
    if num_ranges == 1:
        return state
    own = int((_words(state, _COUNTS, num_ranges) != 0).argmax())  # after it come the cells
    first = own * _WORD  # the new beginning ends where the count of the own cells stands
    state[first : first + _HEAD] = state[:_HEAD].copy()
    _words(state, first + _HEAD, 1)[0] = 1
    return state[first : len(state) - (num_ranges - 1 - own) * _WORD]


def for_ranges(state: StateBytes, num_ranges: int) -> StateBytes:
    """The state for a context of so many ranges, copied unless it is one already."""
    if num_ranges_of(state) == num_ranges:
        return state
    state = for_pool(state)
    wider = new_bytes(len(state) + (num_ranges - 1) * _WORD)
    wider[: len(state)] = state
    _words(wider, _HEAD, 1)[0] = num_ranges
    return wider


def _words(state: StateBytes, offset: int, count: int) -> npt.NDArray[np.uint32]:
    return state[offset : offset + count * _WORD].view(np.uint32)
