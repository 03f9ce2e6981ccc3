"""Memory that states are copied to."""

from __future__ import annotations

import pytest

from workers.engines.llama_cpp.new_pages import new_bytes


@pytest.mark.parametrize("size", [1, 4097, (4 << 20) - 1, 4 << 20, (9 << 20) + 5])
def test_all_of_it_is_there_empty_and_writable(size: int) -> None:
    data = new_bytes(size)
    assert len(data) == size
    assert not data.any()
    data[:] = 7
    assert int(data.sum()) == 7 * size


def test_it_is_nobody_elses() -> None:
    one, other = new_bytes(5 << 20), new_bytes(5 << 20)
    one[:] = 1
    assert not other.any()
