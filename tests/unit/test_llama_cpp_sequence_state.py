"""The state of a sequence in the forms of both layouts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from workers.engines.llama_cpp.sequence_state import for_pool, for_ranges, num_ranges_of

_HEAD = b"magiseqi"
_CELLS = bytes(range(200)) * 3


def words(*numbers: int) -> bytes:
    return np.asarray(numbers, np.uint32).tobytes()


def state(num_ranges: int, own: int = 0) -> npt.NDArray[np.uint8]:
    before, after = [0] * own, [0] * (num_ranges - 1 - own)
    data = _HEAD + words(num_ranges, *before, 7) + _CELLS + words(*after)
    return np.frombuffer(bytearray(data), np.uint8)


@pytest.mark.parametrize(
    ("num_ranges", "own"), [(1, 0), (2, 0), (2, 1), (16, 0), (16, 7), (16, 15)]
)
def test_from_ranges_to_a_pool_and_back(num_ranges: int, own: int) -> None:
    pooled = for_pool(state(num_ranges, own))
    assert pooled.tobytes() == state(1).tobytes()
    ranged = for_ranges(pooled, num_ranges)
    assert num_ranges_of(ranged) == num_ranges
    assert ranged.tobytes() == state(num_ranges, 0).tobytes()


def test_from_one_number_of_ranges_to_another() -> None:
    assert for_ranges(state(4, 2), 8).tobytes() == state(8, 0).tobytes()


def test_what_is_of_the_right_form_is_not_copied() -> None:
    ranged, pooled = state(8, 3), state(1)
    assert for_ranges(ranged, 8) is ranged
    assert for_pool(pooled) is pooled


def test_a_pool_takes_the_bytes_as_they_lie() -> None:
    ranged = state(8, 3)
    assert np.shares_memory(for_pool(ranged), ranged)
