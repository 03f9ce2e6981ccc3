"""How much of prompts is read between two steps of decoding."""

from __future__ import annotations

from workers.engines.llama_cpp.cpu.interleaving import Interleaving


def rounds(num_readers: int, count: int) -> list[int]:
    turns = Interleaving()
    return [turns.next(num_readers) for _ in range(count)]


def test_one_reader_and_those_that_decode_take_turns() -> None:
    assert rounds(1, 4) == [1, 0, 1, 0]


def test_several_readers_read_two_budgets_each_and_eight_at_most() -> None:
    assert rounds(2, 4) == [4, 0, 4, 0]
    assert rounds(3, 4) == [4, 2, 0, 4]
    assert rounds(4, 4) == [4, 4, 0, 4]
    assert rounds(15, 4) == [4, 4, 0, 4]


def test_decoding_is_due_when_fewer_are_left_to_read() -> None:
    turns = Interleaving()
    assert turns.next(15) == 4
    assert turns.next(2) == 0
    assert turns.next(2) == 4
    assert turns.next(1) == 0
    assert turns.next(1) == 1
