"""How many threads a llama.cpp step takes beside others that work."""

from __future__ import annotations

import pytest

from workers.engines.shared.thread_share import ThreadShare


class Machine:
    """A machine that works as it is told: cores in use, by us and by others."""

    def __init__(self) -> None:
        self._ours = self._others = 0.0

    def go(self, seconds: float, ours: float, others: float) -> None:
        self._ours += seconds * ours
        self._others += seconds * others

    def ours(self) -> float:
        return self._ours

    def all(self) -> float:
        return self._ours + self._others


@pytest.mark.parametrize(
    ("most", "num_cores", "others", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.5, 2),  # the API, Redis and the client of a busy server
        (2, 2, 1.0, 1),  # another model
        (2, 2, 2.0, 1),
        (4, 8, 3.0, 4),
        (8, 8, 3.0, 5),
        (8, 64, 40.0, 8),
        (1, 2, 2.0, 1),
    ],
)
def test_others_cores_are_left_to_them(
    most: int, num_cores: int, others: float, expected: int
) -> None:
    machine = Machine()
    share = ThreadShare(most, num_cores, machine)
    assert share.choose(0.0) == most
    machine.go(0.3, 1.0, others)
    share.note_step(0.3)
    assert share.choose(0.3) == expected


def test_cores_that_become_free_are_taken_again() -> None:
    machine = Machine()
    share = ThreadShare(2, 2, machine)
    share.choose(0.0)
    machine.go(0.3, 1.0, 1.0)
    share.note_step(0.3)
    assert share.choose(0.3) == 1
    share.note_step(0.4)
    assert share.choose(0.4) == 1, "too soon to look again"
    machine.go(0.3, 1.0, 0.1)
    share.note_step(0.6)
    assert share.choose(0.6) == 2


def test_what_happened_in_a_pause_counts_for_nothing() -> None:
    machine = Machine()
    share = ThreadShare(2, 2, machine)
    share.choose(0.0)
    machine.go(0.3, 1.0, 1.0)
    share.note_step(0.3)
    assert share.choose(0.3) == 1
    machine.go(60, 0.0, 0.0)
    assert share.choose(60.3) == 1
    machine.go(0.3, 1.0, 0.0)
    share.note_step(60.6)
    assert share.choose(60.6) == 2, "what they do while we work counts"


def test_what_others_did_in_a_short_rest_changes_nothing() -> None:
    machine = Machine()
    share = ThreadShare(2, 2, machine)
    share.choose(0.0)
    machine.go(0.3, 1.0, 0.1)
    share.note_step(0.3)
    machine.go(0.5, 0.0, 2.0)
    assert share.choose(0.8) == 2
    machine.go(0.3, 1.0, 1.0)
    share.note_step(1.1)
    assert share.choose(1.1) == 1, "what they do while we work counts"
