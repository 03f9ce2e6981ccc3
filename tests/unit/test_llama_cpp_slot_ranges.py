"""Which range a sequence gets, and which rows of no use stand between those that run."""

from __future__ import annotations

import pytest

from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.memory import Filler
from workers.engines.llama_cpp.slot_ranges import SlotRanges


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "llama_get_memory", lambda context: context)
    monkeypatch.setattr(lib, "llama_memory_seq_rm", lambda *_: True)


def ranges(num_slots: int = 16, *, has_fours: bool = True) -> SlotRanges:
    return SlotRanges(None, 256, num_slots, has_fours=has_fours)


def places(memory: SlotRanges, *seq_ids: int) -> list[int]:
    return sorted(row.seq_id for row in memory.fillers(seq_ids, len(seq_ids)))


def test_sequences_lie_side_by_side() -> None:
    memory = ranges(4)
    assert [memory.open_seq() for _ in range(4)] == [0, 1, 2, 3]
    memory.release(1)
    memory.release(3)
    assert [memory.open_seq() for _ in range(2)] == [1, 3]


def test_what_is_kept_stays_while_there_are_free_ranges_beside_those_that_run() -> None:
    memory = ranges(4)
    assert memory.set_aside(memory.open_seq()) == 0
    assert memory.in_the_way is None
    assert memory.open_seq() == 1
    assert memory.in_the_way is None, "2 is as near as 0"
    assert memory.open_seq() == 2
    assert memory.take_back(0) == 0


def test_what_is_kept_between_those_that_run_is_in_the_way() -> None:
    memory = ranges(5)
    for _ in range(3):
        memory.open_seq()
    memory.set_aside(1)
    assert memory.in_the_way == 1
    memory.release(1)
    assert memory.open_seq() == 1


def test_when_all_is_kept_the_oldest_is_in_the_way() -> None:
    memory = ranges(3)
    for _ in range(3):
        memory.open_seq()
    for seq_id in (2, 0, 1):
        memory.set_aside(seq_id)
    assert memory.in_the_way == 2


def test_a_copy_must_save_more_than_it_costs() -> None:
    memory = ranges()
    seq_id = memory.open_seq()
    memory.note_decoded(seq_id, 200)
    assert [memory.is_worth_branching(seq_id, count) for count in (31, 49, 50)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("running", "fillers"),
    [
        ([3], []),
        ([0, 1], []),
        ([0, 1, 2], [3]),
        ([13, 14, 15], [12]),
        ([0, 2], [1, 3]),  # four rows for the price of two and less
        ([0, 15], []),
        ([0, 1, 2, 3, 5, 6, 7, 8], []),  # two fours
        ([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15], [7]),
        ([0, 1, 2, 4, 5, 6], [3, 7]),
    ],
)
def test_rows_that_make_fours_of_neighbours(running: list[int], fillers: list[int]) -> None:
    assert places(ranges(), *running) == fillers
    assert places(ranges(), *reversed(running)) == fillers


def test_without_such_kernels_a_hole_is_cheaper_than_the_weights() -> None:
    memory = ranges(has_fours=False)
    assert places(memory, 0, 1, 2) == []
    assert places(memory, 0, 4) == [1, 2, 3]
    assert places(memory, 0, 9) == []


def test_a_filler_comes_after_what_its_range_holds() -> None:
    memory = ranges()
    memory.note_decoded(1, 30)
    assert memory.fillers([0, 2], 2) == [Filler(1, 30), Filler(3, 0)]
    memory.note_decoded(1, 226)
    assert memory.fillers([0, 2], 2) == [Filler(3, 0)]


def test_what_is_read_gets_no_fillers() -> None:
    assert ranges().fillers([0, 1, 2], 90) == []


@pytest.mark.parametrize(
    ("running", "are_apart"),
    [
        ([4, 5, 6, 7], False),
        ([4, 6, 7, 8], True),
        ([0, 3], False),
        ([0, 15], True),
        ([0, 2, 4, 6, 8, 10, 12, 14], True),
        ([0, 1, 2, 3, 5, 6, 7, 8], False),
    ],
)
def test_moving_together_must_make_a_call_shorter(running: list[int], are_apart: bool) -> None:
    assert ranges().are_apart(running) == are_apart
