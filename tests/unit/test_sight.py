"""Who was blind judges nobody until all the others have had the time for a heartbeat."""

from __future__ import annotations

import pytest

from jobs.storage.desired_models import HEARTBEAT_TTL_S
from jobs.storage.sight import BLIND_AFTER_S, RECOVERY_S, Sight


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
def sight(clocks: Clocks) -> Sight:
    return Sight(lambda: clocks.monotonic_s, lambda: clocks.wall_s)


def look_for(sight: Sight, clocks: Clocks, seconds: float) -> None:
    """Redis answers each second, for so long."""
    for _ in range(int(seconds)):
        clocks.pass_s(1.0)
        sight.look()
    clocks.pass_s(seconds - int(seconds))


def test_who_sees_redis_each_second_sees_clearly(sight: Sight, clocks: Clocks) -> None:
    for _ in range(100):
        look_for(sight, clocks, 1)
        assert sight.is_clear


def test_three_seconds_without_an_answer_are_blindness_also_before_the_next_one(
    sight: Sight, clocks: Clocks
) -> None:
    sight.look()
    clocks.pass_s(BLIND_AFTER_S - 0.1)
    assert sight.is_clear
    clocks.pass_s(0.1)
    assert not sight.is_clear


def test_six_seconds_after_the_first_answer_it_is_clear_again(sight: Sight, clocks: Clocks) -> None:
    sight.look()
    clocks.pass_s(BLIND_AFTER_S)
    sight.look()
    look_for(sight, clocks, RECOVERY_S - 0.5)
    assert not sight.is_clear
    clocks.pass_s(0.5)
    assert sight.is_clear


def test_who_has_recovered_has_left_every_heartbeat_its_time() -> None:
    assert RECOVERY_S > HEARTBEAT_TTL_S


def test_blindness_in_the_recovery_begins_it_anew(sight: Sight, clocks: Clocks) -> None:
    sight.look()
    clocks.pass_s(BLIND_AFTER_S)
    sight.look()
    look_for(sight, clocks, 5)
    clocks.pass_s(BLIND_AFTER_S)
    sight.look()
    look_for(sight, clocks, 5)
    assert not sight.is_clear
    look_for(sight, clocks, 1)
    assert sight.is_clear


@pytest.mark.parametrize("clock", ["monotonic_s", "wall_s"])
def test_a_jump_of_either_clock_is_blindness(sight: Sight, clocks: Clocks, clock: str) -> None:
    """A machine that sleeps stops the one, and who sets the time moves the other."""
    sight.look()
    setattr(clocks, clock, getattr(clocks, clock) + 3600.0)
    assert not sight.is_clear
    sight.look()
    look_for(sight, clocks, RECOVERY_S)
    assert sight.is_clear


def test_time_that_is_set_back_blinds_nobody(sight: Sight, clocks: Clocks) -> None:
    sight.look()
    clocks.wall_s -= 3600.0
    assert sight.is_clear
    look_for(sight, clocks, 2)
    assert sight.is_clear


def test_blindness_may_be_told(sight: Sight, clocks: Clocks) -> None:
    sight.look()
    sight.note_blindness()
    assert not sight.is_clear
    look_for(sight, clocks, RECOVERY_S)
    assert sight.is_clear
