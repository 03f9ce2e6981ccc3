"""The gate: no job leaves the queue before a slot is free."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.waiting import wait_until
from workers.runtime.slots import SlotLimiter


class Waiter:
    """A thread that waits at the gate."""

    def __init__(self, gate: SlotLimiter) -> None:
        self.answers: list[bool] = []
        self._thread = threading.Thread(
            target=lambda: self.answers.append(gate.wait()), daemon=True
        )
        self._thread.start()

    def answer(self) -> bool:
        wait_until(lambda: self.answers, "the gate lets it pass")
        return self.answers[0]


def test_a_gate_that_was_never_opened_lets_nobody_pass_until_it_closes() -> None:
    gate = SlotLimiter()
    waiter = Waiter(gate)
    assert waiter.answers == []
    gate.close()
    assert waiter.answer() is False


def test_opening_lets_the_waiter_pass() -> None:
    gate = SlotLimiter()
    waiter = Waiter(gate)
    gate.open(1)
    assert waiter.answer() is True


def test_a_full_gate_opens_when_a_slot_is_given_back() -> None:
    gate = SlotLimiter()
    gate.open(2)
    gate.take(2)
    waiter = Waiter(gate)
    assert waiter.answers == []
    gate.give(1)
    assert waiter.answer() is True


def test_a_job_may_take_more_than_there_is_and_all_wait_until_it_fits() -> None:
    gate = SlotLimiter()
    gate.open(2)
    gate.take(5)
    waiter = Waiter(gate)
    gate.give(3)
    assert (gate.taken, waiter.answers) == (2, [])
    gate.give(1)
    assert waiter.answer() is True


def test_a_closed_gate_stays_closed_whatever_is_free() -> None:
    gate = SlotLimiter()
    gate.open(8)
    gate.close()
    assert gate.wait() is False
    gate.open(8)
    assert gate.wait() is False


def test_a_held_gate_lets_nobody_in_before_its_holder_releases_it() -> None:
    gate = SlotLimiter()
    gate.open(8)
    gate.hold("a")
    waiter = Waiter(gate)
    gate.release("b")
    assert waiter.answers == []
    gate.release("a")
    assert waiter.answer() is True


def test_a_held_gate_that_is_closed_lets_its_waiters_go() -> None:
    gate = SlotLimiter()
    gate.open(8)
    gate.hold("a")
    waiter = Waiter(gate)
    gate.close()
    assert waiter.answer() is False


@given(st.lists(st.integers(1, 9), max_size=30))
def test_what_is_given_back_is_what_was_taken(amounts: list[int]) -> None:
    gate = SlotLimiter()
    gate.open(4)
    for amount in amounts:
        gate.take(amount)
    for amount in reversed(amounts):
        gate.give(amount)
    assert gate.taken == 0
    assert gate.wait() is True
