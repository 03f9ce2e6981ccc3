"""Pages of a mapped file leave the process, and come back with the same content."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from workers.engines.llama_cpp import mapped_pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' list of mappings")


def resident_kb(path: Path) -> int:
    """Pages of ``path`` in this process."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[first:] if line.startswith("Rss:"))


def test_they_leave_and_come_back(tmp_path: Path) -> None:
    path, other = tmp_path / "a model.gguf", tmp_path / "other.gguf"
    maps = []
    for file in (path, other):
        file.write_bytes(bytes(range(256)) * 4096)
        with file.open("rb") as opened:
            maps.append(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        assert sum(maps[-1][:: mmap.PAGESIZE]) == 0
    mapped_pages.release([path])
    assert resident_kb(path) == 0
    assert resident_kb(other) == 1024
    assert maps[0][:] == other.read_bytes()
    for mapped in maps:
        mapped.close()
