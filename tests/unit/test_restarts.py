"""When a worker that died may start again."""

from __future__ import annotations

import secrets

from tests.helpers.clock import Clock
from workers.supervision.restarts import RestartPolicy, delay_s


def crash(policy: RestartPolicy, times: int) -> None:
    for _ in range(times):
        policy.note_crash("a", secrets.token_hex(4))


def test_the_delays_double_up_to_half_a_minute() -> None:
    assert [delay_s(n) for n in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert delay_s(5000) == 30


def test_a_worker_that_never_died_may_start(clock: Clock) -> None:
    assert RestartPolicy().may_start("a")


def test_after_one_crash_it_starts_at_once(clock: Clock) -> None:
    policy = RestartPolicy()
    crash(policy, 1)
    assert policy.may_start("a")


def test_after_more_it_waits_and_others_do_not(clock: Clock) -> None:
    policy = RestartPolicy()
    crash(policy, 4)
    assert not policy.may_start("a")
    assert policy.may_start("b")
    clock.now += 3.9
    assert not policy.may_start("a")
    clock.now += 0.2
    assert policy.may_start("a")


def test_quiet_minutes_are_forgiven(clock: Clock) -> None:
    policy = RestartPolicy()
    crash(policy, 5)
    clock.now += 121
    crash(policy, 1)
    assert policy.num_crashes("a") == 1
    assert policy.may_start("a")


def test_crashes_in_a_row_add_up_however_long_the_back_off(clock: Clock) -> None:
    policy = RestartPolicy()
    for _ in range(12):
        crash(policy, 1)
        clock.now += delay_s(policy.num_crashes("a"))
        assert policy.may_start("a")
    assert policy.num_crashes("a") == 12


def test_an_unloaded_model_begins_anew(clock: Clock) -> None:
    policy = RestartPolicy()
    crash(policy, 6)
    policy.forget("a")
    assert policy.may_start("a")
    assert policy.num_crashes("a") == 0


def test_a_death_that_is_told_twice_counts_once(clock: Clock) -> None:
    policy = RestartPolicy()
    for _ in range(3):
        policy.note_crash("a", "the same worker")
    assert policy.num_crashes("a") == 1


def test_totals_count_every_death_once_and_forget_none() -> None:
    policy = RestartPolicy()
    policy.note_crash("a", "1")
    policy.note_crash("a", "1")
    policy.note_crash("a", "2")
    policy.note_crash("b", "3")
    policy.forget("a")
    assert policy.totals == {"a": 2, "b": 1}


def test_a_process_that_cannot_be_started_is_tried_ever_later(clock: Clock) -> None:
    policy = RestartPolicy()
    waits = []
    for _ in range(8):
        policy.note_failed_start("a")
        begun = clock.now
        while not policy.may_start("a"):
            clock.now += 0.5
        waits.append(clock.now - begun)
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30]
    assert policy.may_start("b")


def test_a_process_that_could_be_started_begins_anew_and_is_no_crash(clock: Clock) -> None:
    policy = RestartPolicy()
    for _ in range(5):
        policy.note_failed_start("a")
    policy.note_start("a")
    assert policy.may_start("a")
    assert (policy.num_crashes("a"), policy.totals) == (0, {})


def test_a_start_does_not_forgive_crashes(clock: Clock) -> None:
    policy = RestartPolicy()
    crash(policy, 4)
    policy.note_failed_start("a")
    policy.note_start("a")
    assert not policy.may_start("a")


def test_models_that_are_gone_are_forgotten(clock: Clock) -> None:
    policy = RestartPolicy()
    for slug in ("a", "b"):
        policy.note_failed_start(slug)
        for token in "12345":
            policy.note_crash(slug, token)
    policy.keep_only({"b"})
    assert policy.totals == {"b": 5}
    assert policy.may_start("a")
    assert not policy.may_start("b")
