"""Which slot a sequence gets, and which kept sequence is evicted for it."""

from __future__ import annotations

import pytest

from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "llama_get_memory", lambda context: context)
    monkeypatch.setattr(lib, "llama_memory_seq_rm", lambda *_: True)


def cells(num_slots: int) -> PerSlotCells:
    return PerSlotCells(None, 256, num_slots)


def test_the_lowest_free_slot_is_taken() -> None:
    memory = cells(4)
    assert [memory.open_seq() for _ in range(4)] == [0, 1, 2, 3]
    memory.release(3)
    memory.release(1)
    assert [memory.open_seq() for _ in range(2)] == [1, 3]


def test_what_is_kept_stays_while_there_are_free_slots() -> None:
    memory = cells(3)
    assert memory.keep(memory.open_seq()) == 0
    seen = [memory.seq_to_evict]
    for _ in range(2):
        memory.open_seq()
        seen.append(memory.seq_to_evict)
    assert seen == [None, None, 0]
    assert memory.resume(0) == 0


def test_when_all_slots_hold_kept_sequences_the_oldest_is_evicted() -> None:
    memory = cells(3)
    for _ in range(3):
        memory.open_seq()
    for seq_id in (2, 0, 1):
        memory.keep(seq_id)
    assert memory.seq_to_evict == 2
    memory.release(2)
    assert memory.open_seq() == 2


def test_each_slot_has_room_for_the_longest() -> None:
    memory = cells(2)
    for seq_id in (memory.open_seq(), memory.open_seq()):
        memory.note_decoded(seq_id, 256)
    assert memory.num_free == 0
    assert memory.num_paddable([0, 1]) == 0
