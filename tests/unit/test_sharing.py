"""Sharing the slots between classes: who may enter, who gives way, what a step costs."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.helpers.waiting import wait_until
from workers.scheduling.fair_use import FairUse, Use
from workers.scheduling.sharing import Sharing
from workers.scheduling.slots import SlotLimiter
from workers.scheduling.step_costs import StepCosts

_ids = itertools.count(1)


@dataclass
class Job:
    job_class: Literal["interactive", "batch"] = "batch"
    num_since_start: int = 100
    num_sequences: int = 1
    is_reading: bool = False
    num_yields: int = 0
    is_pinned: bool = False
    caller: str = ""
    weight: float = 1.0
    num_read: int = 0
    job_id: str = field(default_factory=lambda: f"job-{next(_ids)}")


def sharing(slots: int = 4, **options: float) -> Sharing:
    limiter = SlotLimiter(**options)
    limiter.open(slots)
    return Sharing(limiter, quantum=10)


def entered(shared: Sharing, *jobs: Job) -> list[Job]:
    for job in jobs:
        shared.enter(job)
    return list(jobs)


def test_an_interactive_job_enters_as_if_no_batch_job_ran() -> None:
    shared = sharing(2)
    entered(shared, Job(), Job())
    assert shared.slots.has_room
    entered(shared, Job("interactive"), Job("interactive"))
    assert not shared.slots.has_room


def test_those_that_are_read_give_way_first_then_those_that_said_least() -> None:
    shared = sharing(4)
    jobs = entered(
        shared, Job(num_since_start=90), Job(num_since_start=3), Job(num_since_start=20), Job()
    )
    entered(shared, Job("interactive"), Job("interactive"), Job("interactive"))
    assert [job.num_since_start for job in shared.victims(jobs)] == [20, 90, 100]
    reading = Job(is_reading=True, num_since_start=0)
    assert shared.victims([*jobs, reading])[0] is reading
    calm = sharing(4)
    assert calm.victims(entered(calm, Job(), reading)) == [reading], "though there is room"


def test_a_pinned_job_gives_way_to_nobody_until_it_has_had_its_quantum() -> None:
    shared = sharing(1)
    (job,) = entered(shared, Job(num_yields=8, num_since_start=0))
    states = [(job.is_pinned, shared.slots.has_room)]
    assert shared.victims([job]) == []
    job.num_since_start = 10
    shared.note_step([job], 0.01, has_prefilled=False)
    states.append((job.is_pinned, shared.slots.has_room))
    assert states == [(True, False), (False, True)]


def test_a_pinned_job_that_ends_leaves_no_pin() -> None:
    shared = sharing(2)
    (job,) = entered(shared, Job(num_yields=16, num_sequences=2, num_since_start=0))
    shared.leave(job, 1)
    shared.leave(job, 1)
    assert shared.slots.taken == 0
    entered(shared, Job("interactive"))
    assert shared.slots.has_room


def waits(slots: SlotLimiter) -> tuple[threading.Thread, list[bool]]:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(slots.wait_batch()), daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("why", ["waiting", "reading", "limit", "full", "held"])
def test_a_batch_job_waits_while_interactive_ones_need_the_room(why: str) -> None:
    shared = sharing(2)
    slots = shared.slots
    entered(shared, Job("interactive"), *([Job("interactive")] if why == "full" else []))
    slots.note_interactive_idle(why != "waiting")
    slots.limit_batch(0 if why == "limit" else 1, is_reading=why == "reading")
    if why == "held":
        slots.hold("suspect")
    thread, found = waits(slots)
    thread.join(0.05)
    assert not found
    slots.note_interactive_idle(True)
    slots.limit_batch(1, is_reading=False)
    slots.release("suspect")
    if why == "full":
        slots.give(1)
    thread.join(5)
    assert found == [True]


def test_a_starving_batch_job_is_owed_the_next_slot_and_then_keeps_it() -> None:
    shared = sharing(1, starve_s=0.05, has_batch_waiting=lambda: True)
    slots = shared.slots
    entered(shared, Job("interactive"))
    slots.note_interactive_idle(False)
    thread, found = waits(slots)
    wait_until(lambda: slots._is_batch_owed, "a slot is owed")
    slots.give(1)
    assert not slots.has_room, "it is for the batch job"
    thread.join(5)
    assert found == [True]
    (job,) = entered(shared, Job(num_since_start=0))
    assert job.is_pinned


def test_where_no_batch_job_waits_nothing_is_owed() -> None:
    slots = sharing(1, starve_s=0.01, has_batch_waiting=lambda: False).slots
    slots.take(1)
    thread, found = waits(slots)
    thread.join(1.3)
    assert not slots._is_batch_owed
    slots.close()
    thread.join(5)
    assert found == [False]
    owed = sharing(1).slots
    owed._owe_batch(True)
    owed.note_batch_idle(True)
    assert owed.has_room


def costs(**seconds: float) -> StepCosts:
    found = StepCosts(1.25)
    for rows, each in seconds.items():
        found.note(int(rows[1:]), each)
    return found


def test_what_a_step_costs_is_a_line_through_the_nearest_known_numbers() -> None:
    known = costs(r1=0.010, r3=0.014)
    assert known.predict(2) == pytest.approx(0.012)
    assert known.predict(5) == pytest.approx(0.018)
    assert costs(r2=0.01).predict(3) is None


@pytest.mark.parametrize(
    ("known", "interactive", "expected"),
    [
        ({}, 1, 1),  # to find out
        ({"r1": 0.010}, 1, 1),
        ({"r1": 0.010, "r4": 0.0125}, 1, 3),  # 1.25 times as long
        ({"r1": 0.010, "r4": 0.019}, 1, 0),
        ({"r1": 0.010, "r3": 0.014}, 1, 1),
        ({"r1": 0.010, "r4": 0.019}, 0, 4),
        ({"r1": 0.010}, 4, 0),
    ],
)
def test_as_many_rows_run_beside_as_the_slowdown_allows(
    known: dict[str, float], interactive: int, expected: int
) -> None:
    assert costs(**known).num_beside(interactive, 4) == expected


def test_reading_a_batch_prompt_is_a_debt_that_later_steps_pay_off() -> None:
    known = costs(r1=0.010)
    states = [known.is_in_debt]
    known.charge(1, 0.200)
    states.append(known.is_in_debt)
    for _ in range(100):
        known.charge(1, 0.010)
    assert [*states, known.is_in_debt] == [False, True, False]


def test_a_batch_prompt_gives_way_once_it_has_cost_too_much() -> None:
    shared = sharing(4)
    talking = Job("interactive")
    reading = Job(is_reading=True, num_since_start=0)
    entered(shared, talking, reading)
    assert shared.note_step([talking], 0.01, has_prefilled=False) is None
    assert shared.note_step([talking, reading], 0.2, has_prefilled=True) is reading


def test_a_batch_job_gives_way_to_a_prompt_for_which_there_is_no_memory() -> None:
    shared = sharing(4)
    asked = Job("interactive", is_reading=True, num_since_start=0)
    running = Job()
    entered(shared, running, asked)
    assert shared.note_step([running, asked], 0.01, has_prefilled=True) is None
    assert shared.note_step([running, asked], 0.01, has_prefilled=False) is running


def test_use_is_counted_by_class_and_caller_and_divided_by_weight() -> None:
    use = FairUse(output_weight=2)
    job = Job("interactive", caller="a", weight=2, num_read=10, num_since_start=0)
    use.begin(job)
    takes = use.of("interactive")
    assert takes.begin_take() == Use({"interactive:a": 5.0}, {"a": 1})
    job.num_since_start = 7
    assert takes.begin_take() == Use({"interactive:a": 7.0}, {"a": 1})
    assert takes.begin_take() == Use({}, {"a": 1})
    job.num_read = 4  # six were found in the prompt cache
    use.end(job)
    use.end(job)
    assert takes.begin_take() == Use({"interactive:a": -3.0}, {})


def test_what_another_consumer_may_have_taken_is_told_until_it_has_started() -> None:
    use = FairUse(output_weight=2)
    talk, batch = use.of("interactive"), use.of("batch")
    assert talk.begin_take().num_taking == 0
    assert batch.begin_take().num_taking == 1
    batch.end_take()
    use.begin(Job("interactive", caller="a"))
    found = batch.begin_take()
    assert (found.running, found.num_taking) == ({"a": 1}, 0)
    assert talk.begin_take().num_taking == 1
