"""Memory that has nothing behind it yet, and that something then is."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator

import pytest

from workers.engines.llama_cpp import first_touch
from workers.engines.llama_cpp.first_touch import Region, private_regions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' list of mappings")
_SIZE = 8 << 20


@pytest.fixture
def new_memory() -> Iterator[tuple[mmap.mmap, Region, frozenset[Region]]]:
    """Untouched memory, where it is, and what there was before."""
    before = private_regions()
    pages = mmap.mmap(-1, _SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    holder = ctypes.c_char.from_buffer(pages)
    start = ctypes.addressof(holder)
    yield pages, (start, start + _SIZE), before
    del holder
    pages.close()


def test_only_what_has_come_since_is_looked_at(
    new_memory: tuple[mmap.mmap, Region, frozenset[Region]],
) -> None:
    _, region, before = new_memory
    added = first_touch._added(before)
    assert any(start <= region[0] and region[1] <= end for start, end in added)
    assert not any(s < end and start < e for s, e in before for start, end in added)
    assert first_touch._added(private_regions()) == []


def test_holes_are_what_nobody_has_touched_and_touching_fills_them(
    new_memory: tuple[mmap.mmap, Region, frozenset[Region]],
) -> None:
    pages, (start, end), _ = new_memory
    third = start + 4 * (end - start) // 8
    pages[third - start] = 1
    holes = first_touch._untouched((start, end))
    if not holes:
        pytest.skip("huge pages: one touch has filled it")
    assert all(not first_touch._resident(hole).any() for hole in holes)
    assert not any(first <= third < last for first, last in holes)
    for hole in holes:
        first_touch._touch(hole)
    assert first_touch._untouched((start, end)) == []
    assert pages[third - start] == 1
    assert sum(pages[:: mmap.PAGESIZE]) == 1
