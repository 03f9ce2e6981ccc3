"""After an interruption, silence of others counts only when all had time for a heartbeat."""

from __future__ import annotations

import pytest

from jobs.storage.contact import INTERRUPTED_AFTER_S, STABLE_AFTER_S, RedisContact
from jobs.storage.desired_models import HEARTBEAT_TTL_S


class Clocks:
    """The monotonic clock and the wall's, under the test's control."""

    def __init__(self) -> None:
        self.monotonic_s = 1000.0
        self.wall_s = 1.7e9

    def pass_s(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def contact(clocks: Clocks) -> RedisContact:
    return RedisContact(lambda: clocks.monotonic_s, lambda: clocks.wall_s)


def answer_for(contact: RedisContact, clocks: Clocks, seconds: float) -> None:
    """Redis answers each second, for that long."""
    for _ in range(int(seconds)):
        clocks.pass_s(1.0)
        contact.note_answer()
    clocks.pass_s(seconds - int(seconds))


def test_answers_each_second_keep_the_contact_stable(contact: RedisContact, clocks: Clocks) -> None:
    for _ in range(100):
        answer_for(contact, clocks, 1)
        assert contact.is_stable


def test_three_seconds_without_an_answer_are_an_interruption_also_before_the_next_one(
    contact: RedisContact, clocks: Clocks
) -> None:
    contact.note_answer()
    clocks.pass_s(INTERRUPTED_AFTER_S - 0.1)
    assert contact.is_stable
    clocks.pass_s(0.1)
    assert not contact.is_stable


def test_six_seconds_after_the_first_answer_the_contact_is_stable_again(
    contact: RedisContact, clocks: Clocks
) -> None:
    contact.note_answer()
    clocks.pass_s(INTERRUPTED_AFTER_S)
    contact.note_answer()
    answer_for(contact, clocks, STABLE_AFTER_S - 0.5)
    assert not contact.is_stable
    clocks.pass_s(0.5)
    assert contact.is_stable


def test_a_stable_contact_has_left_every_heartbeat_its_time() -> None:
    assert STABLE_AFTER_S > HEARTBEAT_TTL_S


def test_another_interruption_starts_the_wait_anew(contact: RedisContact, clocks: Clocks) -> None:
    contact.note_answer()
    clocks.pass_s(INTERRUPTED_AFTER_S)
    contact.note_answer()
    answer_for(contact, clocks, 5)
    clocks.pass_s(INTERRUPTED_AFTER_S)
    contact.note_answer()
    answer_for(contact, clocks, 5)
    assert not contact.is_stable
    answer_for(contact, clocks, 1)
    assert contact.is_stable


@pytest.mark.parametrize("clock", ["monotonic_s", "wall_s"])
def test_a_jump_of_either_clock_is_an_interruption(
    contact: RedisContact, clocks: Clocks, clock: str
) -> None:
    """A machine that sleeps stops the one, and who sets the time moves the other."""
    contact.note_answer()
    setattr(clocks, clock, getattr(clocks, clock) + 3600.0)
    assert not contact.is_stable
    contact.note_answer()
    answer_for(contact, clocks, STABLE_AFTER_S)
    assert contact.is_stable


def test_time_that_is_set_back_is_no_interruption(contact: RedisContact, clocks: Clocks) -> None:
    contact.note_answer()
    clocks.wall_s -= 3600.0
    assert contact.is_stable
    answer_for(contact, clocks, 2)
    assert contact.is_stable


def test_an_interruption_may_be_noted(contact: RedisContact, clocks: Clocks) -> None:
    contact.note_answer()
    contact.note_interruption()
    assert not contact.is_stable
    answer_for(contact, clocks, STABLE_AFTER_S)
    assert contact.is_stable
