"""The input of a decode pass, in arrays that are allocated once."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.binding import Pointer, lib

IntArray = npt.NDArray[np.int32]


class Batch:
    """Up to ``capacity`` rows of any sequences: (token, position, slot, whether to output logits).

    ``native`` is the ``llama_batch`` over the same memory; nothing is copied.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._slots = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._slot_counts = np.ones(capacity, np.int32)
        # llama_batch.seq_id holds pointers: row i points to its one slot at _slots[i].
        self._slot_pointers = (
            np.arange(capacity, dtype=np.uintp) * self._slots.itemsize + self._slots.ctypes.data
        )
        self.native: Any = self._over_arrays()

    def clear(self) -> None:
        """Remove all rows."""
        self.native.n_tokens = 0

    @property
    def num_tokens(self) -> int:
        count: int = self.native.n_tokens
        return count

    def add(self, tokens: IntArray, position: int, slot: int, *, num_outputs: int) -> int:
        """Add successive tokens of a sequence from ``position`` on; returns the first row.

        The last ``num_outputs`` of them output logits.
        """
        first, end = self.num_tokens, self.num_tokens + len(tokens)
        self._tokens[first:end] = tokens
        self._positions[first:end] = np.arange(position, position + len(tokens))
        self._slots[first:end] = slot
        self._outputs[first:end] = 0
        self._outputs[end - num_outputs : end] = 1
        self.native.n_tokens = end
        return first

    def add_token(self, token: int, position: int, slot: int) -> int:
        """``add`` for one token with logits, only faster."""
        row = self.num_tokens
        self._tokens[row] = token
        self._positions[row] = position
        self._slots[row] = slot
        self._outputs[row] = 1
        self.native.n_tokens = row + 1
        return row

    def _over_arrays(self) -> Pointer:
        batch = lib.llama_batch()
        fields: dict[str, npt.NDArray[Any]] = {
            "token": self._tokens,
            "pos": self._positions,
            "n_seq_id": self._slot_counts,
            "seq_id": self._slot_pointers,
            "logits": self._outputs,
        }
        for name, array in fields.items():
            setattr(batch, name, array.ctypes.data_as(_field_type(name)))
        return batch


def _field_type(name: str) -> Any:
    kinds: dict[str, Any] = dict(lib.llama_batch._fields_)
    kind = kinds[name]
    assert issubclass(kind, ctypes._Pointer)
    return kind
