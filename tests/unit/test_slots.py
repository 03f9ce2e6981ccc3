"""The slots: no job leaves the queue before a slot is free."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.waiting import wait_until
from workers.scheduling.slots import SlotLimiter


class Waiter:
    """A thread that waits at the slots."""

    def __init__(self, slots: SlotLimiter) -> None:
        self.answers: list[bool] = []
        self._thread = threading.Thread(
            target=lambda: self.answers.append(slots.wait()), daemon=True
        )
        self._thread.start()

    def answer(self) -> bool:
        wait_until(lambda: self.answers, "the slots let it pass")
        return self.answers[0]


def test_slots_that_were_never_opened_let_nobody_pass_until_they_close() -> None:
    slots = SlotLimiter()
    waiter = Waiter(slots)
    assert waiter.answers == []
    slots.close()
    assert waiter.answer() is False


def test_opening_lets_the_waiter_pass() -> None:
    slots = SlotLimiter()
    waiter = Waiter(slots)
    slots.open(1)
    assert waiter.answer() is True


def test_full_slots_let_the_next_one_in_when_one_is_given_back() -> None:
    slots = SlotLimiter()
    slots.open(2)
    slots.take(2)
    waiter = Waiter(slots)
    assert waiter.answers == []
    slots.give(1)
    assert waiter.answer() is True


def test_a_job_may_take_more_than_there_is_and_all_wait_until_it_fits() -> None:
    slots = SlotLimiter()
    slots.open(2)
    slots.take(5)
    waiter = Waiter(slots)
    slots.give(3)
    assert (slots.taken, waiter.answers) == (2, [])
    slots.give(1)
    assert waiter.answer() is True


def test_closed_slots_stay_closed_whatever_is_free() -> None:
    slots = SlotLimiter()
    slots.open(8)
    slots.close()
    assert slots.wait() is False
    slots.open(8)
    assert slots.wait() is False


def test_held_slots_let_nobody_in_before_their_holder_releases_them() -> None:
    slots = SlotLimiter()
    slots.open(8)
    slots.hold("a")
    waiter = Waiter(slots)
    slots.release("b")
    assert waiter.answers == []
    slots.release("a")
    assert waiter.answer() is True


def test_held_slots_that_are_closed_let_their_waiters_go() -> None:
    slots = SlotLimiter()
    slots.open(8)
    slots.hold("a")
    waiter = Waiter(slots)
    slots.close()
    assert waiter.answer() is False


@given(st.lists(st.integers(1, 9), max_size=30))
def test_what_is_given_back_is_what_was_taken(amounts: list[int]) -> None:
    slots = SlotLimiter()
    slots.open(4)
    for amount in amounts:
        slots.take(amount)
    for amount in reversed(amounts):
        slots.give(amount)
    assert slots.taken == 0
    assert slots.wait() is True
