"""The planner: memory is never promised twice, nobody's work is ended, everybody has a turn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.helpers.planner_world import GIB, PlannerWorld
from workers.supervision.residency.model_view import Limits, ModelView, Phase
from workers.supervision.residency.planner import Refusal, plan

NOW = 1000.0
LIMITS = Limits(budget_bytes=10 * GIB)


def ready(slug: str, need: float = 6, **fields: Any) -> ModelView:
    """A model that has been ready, and unused, for five minutes."""
    given: dict[str, Any] = {"idle_since": NOW - 300, "ready_since": NOW - 300} | fields
    return ModelView(slug, Phase.READY, int(need * GIB), **given)


def waits(slug: str, need: float = 6, since: float = 1.0, **fields: Any) -> ModelView:
    """A model without a process, for which a job has waited."""
    return ModelView(slug, Phase.ABSENT, int(need * GIB), waiting_since=NOW - since, **fields)


@pytest.mark.parametrize("seed", range(40))
def test_the_rules_hold_at_each_of_many_random_steps(seed: int) -> None:
    world = PlannerWorld(seed)
    for _ in range(500):
        world.step()


def test_a_waiting_model_is_started_where_it_fits() -> None:
    assert plan([ready("a", 3), waits("b", 6)], LIMITS, NOW).start == ["b"]


def test_models_load_one_after_the_other_and_the_second_keeps_its_room() -> None:
    found = plan([waits("a", 4, 9), waits("b", 4, 5), waits("c", 3)], LIMITS, NOW)
    assert (found.start, found.waiting) == (["a"], ["b", "c"])


def test_a_load_without_progress_gives_its_turn_to_the_next() -> None:
    stuck = ModelView("a", Phase.LOADING, GIB, is_stalled=True)
    assert plan([stuck, waits("b")], LIMITS, NOW).start == ["b"]


def test_the_model_that_is_unused_for_the_longest_time_gives_way() -> None:
    models = [ready("a", 5, idle_since=NOW - 100), ready("b", 5, idle_since=NOW - 200)]
    assert plan([*models, waits("c", 5)], LIMITS, NOW).park == ["b"]


def test_one_that_suffices_is_parked_before_several() -> None:
    small = [ready(f"s{i}", 1, idle_since=NOW - 900) for i in range(4)]
    found = plan([*small, ready("big", 6, idle_since=NOW - 20), waits("c", 6)], LIMITS, NOW)
    assert found.park == ["big"]


def test_nothing_is_parked_that_would_not_help() -> None:
    found = plan([ready("a", 5, is_pinned=True), ready("b", 1), waits("c", 6)], LIMITS, NOW)
    assert not found.park
    assert found.refuse == {"c": Refusal(6 * GIB, 10 * GIB, ("a",))}


def test_models_loaded_by_requests_and_of_low_priority_give_way_first() -> None:
    models = [ready("a", 5), ready("b", 5, is_auto=True), waits("c", 5)]
    assert plan(models, LIMITS, NOW).park == ["b"]
    models = [ready("a", 5, priority=-1), ready("b", 5, is_auto=True), waits("c", 5)]
    assert plan(models, LIMITS, NOW).park == ["a"]


def test_a_busy_model_gives_way_only_to_one_that_has_waited() -> None:
    busy = ready("a", is_busy=True)
    assert not plan([busy, waits("b", since=19)], LIMITS, NOW).close
    assert plan([busy, waits("b", since=20)], LIMITS, NOW).close == ["a"]


def test_a_busy_model_gives_way_at_once_to_a_higher_priority() -> None:
    found = plan([ready("a", is_busy=True), waits("b", since=0, priority=1)], LIMITS, NOW)
    assert found.close == ["a"]


def test_a_model_that_has_just_been_loaded_does_not_give_way() -> None:
    new = ready("a", ready_since=NOW - 9)
    assert not plan([new, waits("b", since=99)], LIMITS, NOW).park


def test_memory_that_is_coming_free_is_not_made_free_twice() -> None:
    leaving = ModelView("a", Phase.LEAVING, 6 * GIB)
    found = plan([leaving, ready("b", 3), waits("c", 6)], LIMITS, NOW)
    assert (found.park, found.start, found.waiting) == ([], [], ["c"])


def test_room_that_was_made_for_one_model_is_not_taken_by_the_next() -> None:
    leaving = ModelView("a", Phase.LEAVING, 6 * GIB)
    found = plan([leaving, waits("b", 8, since=30), waits("c", 3, since=1)], LIMITS, NOW)
    assert (found.start, found.waiting) == ([], ["b", "c"])


def test_several_models_wait_for_the_memory_of_one() -> None:
    leaving = ModelView("a", Phase.LEAVING, 9 * GIB)
    found = plan([leaving, waits("b", 4), waits("c", 4), ready("d", 1)], LIMITS, NOW)
    assert (found.park, found.waiting) == ([], ["b", "c"])


def test_a_model_is_parked_after_its_time_without_a_job() -> None:
    assert plan([ready("a", ttl_s=300.0)], LIMITS, NOW).park == ["a"]
    assert not plan([ready("a", ttl_s=301.0)], LIMITS, NOW).park
    for used in ({"is_busy": True}, {"waiting_since": NOW}, {"is_pinned": True}):
        assert not plan([ready("a", ttl_s=0.0, **used)], LIMITS, NOW).park


def test_a_model_that_can_never_fit_is_refused_and_a_guess_is_tried() -> None:
    assert plan([waits("a", 11)], LIMITS, NOW).refuse == {"a": Refusal(11 * GIB, 10 * GIB)}
    guess = waits("a", 11, is_guess=True)
    assert plan([guess], LIMITS, NOW).start == ["a"]
    assert plan([guess, ready("b", 1)], LIMITS, NOW).park == ["b"], "it is tried alone"


def test_a_resident_model_without_jobs_makes_nobody_leave() -> None:
    resident = ModelView("b", Phase.ABSENT, 6 * GIB, is_wanted=True)
    found = plan([ready("a"), resident], LIMITS, NOW)
    assert (found.park, found.start, found.waiting) == ([], [], ["b"])


def test_a_parked_model_without_jobs_stays_parked() -> None:
    assert plan([ModelView("a", Phase.ABSENT, GIB)], LIMITS, NOW) == plan([], LIMITS, NOW)


def test_with_other_machines_nothing_is_parked_in_the_first_second() -> None:
    limits = Limits(budget_bytes=10 * GIB, patience_s=1.0)
    assert not plan([ready("a"), waits("b", since=0.5)], limits, NOW).park
    assert plan([ready("a"), waits("b", since=1.0)], limits, NOW).park == ["a"]


def test_two_models_that_do_not_fit_together_take_turns() -> None:
    world = PlannerWorld(0)
    world.limits = LIMITS
    world.load_s = 2.0
    a, b = list(world.models.values())[:2]
    world.models = {a.slug: a, b.slug: b}
    for model in (a, b):
        model.need, model.pinned, model.priority, model.ttl_s = 6 * GIB, False, 0, None
    for _ in range(2000):
        for model in (a, b):
            model.waiting.append(world.now)
        world.step()
    seconds = world.now - 1000
    assert world.longest_wait_s < 60
    assert min(world.swaps.values()) > 20
    assert sum(world.swaps.values()) <= seconds / 20


# Work of the class batch.


def lines(slug: str, need: float = 6, since: float = 1.0, **fields: Any) -> ModelView:
    """A model without a process, for which only lines of a batch have waited."""
    return ModelView(slug, Phase.ABSENT, int(need * GIB), batch_since=NOW - since, **fields)


def test_a_batch_starts_its_model_where_there_is_room() -> None:
    assert plan([ready("a", 3), lines("b", 6)], LIMITS, NOW).start == ["b"]


def test_a_batch_takes_the_room_of_a_model_that_nobody_has_used_for_a_while() -> None:
    for used_at in (-math.inf, NOW - 300):
        found = plan([ready("a", interactive_at=used_at), lines("b", since=99)], LIMITS, NOW)
        assert found.park == ["a"]
    recent = ready("a", interactive_at=NOW - 299)
    found = plan([recent, lines("b", since=9999)], LIMITS, NOW)
    assert (found.park, found.close, found.waiting) == ([], [], ["b"])


@pytest.mark.parametrize("used", [{"is_busy": True}, {"waiting_since": NOW}])
def test_a_batch_never_takes_the_room_of_a_model_that_people_use(used: dict[str, Any]) -> None:
    found = plan([ready("a", **used), lines("b", since=9999, priority=9)], LIMITS, NOW)
    assert (found.park, found.close, found.waiting) == ([], [], ["b"])


def test_batch_work_gives_way_to_a_person_at_once() -> None:
    for work in ({"is_batch_busy": True}, {"batch_since": NOW}):
        new = ready("a", ready_since=NOW - 1, **work)
        assert plan([new, waits("b", since=0)], LIMITS, NOW).close == ["a"]
        assert not plan([ready("a", is_pinned=True, **work), waits("b")], LIMITS, NOW).close


def test_a_model_with_batch_work_gives_way_before_one_that_was_just_used() -> None:
    batch = ready("a", 5, is_batch_busy=True)
    used = ready("b", 5, interactive_at=NOW - 20, idle_since=NOW - 20)
    unused = ready("b", 5, interactive_at=NOW - 900, idle_since=NOW - 900)
    assert plan([batch, used, waits("c", 5)], LIMITS, NOW).close == ["a"]
    found = plan([batch, unused, waits("c", 5)], LIMITS, NOW)
    assert (found.park, found.close) == (["b"], [])


def test_a_batch_starts_nothing_while_a_person_waits_for_room() -> None:
    busy = ready("a", 8, is_busy=True)
    found = plan([busy, waits("b", 5), lines("c", 1, since=500)], LIMITS, NOW)
    assert (found.start, found.waiting) == ([], ["b", "c"])


def test_people_start_their_models_before_any_batch() -> None:
    found = plan([lines("a", 3, since=9999, priority=5), waits("b", 3, since=0)], LIMITS, NOW)
    assert (found.start, found.waiting) == (["b"], ["a"])


def test_batches_whose_models_do_not_fit_together_take_long_turns() -> None:
    def found(resident_s: float, waited_s: float) -> list[str]:
        other = ready("a", is_batch_busy=True, ready_since=NOW - resident_s)
        return plan([other, lines("b", since=waited_s)], LIMITS, NOW).close

    assert found(600, 600) == ["a"]
    assert found(599, 900) == []
    assert found(900, 599) == []


def test_a_batch_that_has_nothing_queued_for_a_moment_keeps_its_model() -> None:
    moment = ready("a", idle_since=NOW - 2)
    assert not plan([moment, lines("b", since=99)], LIMITS, NOW).park


def test_a_time_to_live_does_not_end_batch_work() -> None:
    for work in ({"is_batch_busy": True}, {"batch_since": NOW}):
        found = plan([ready("a", ttl_s=0.0, **work)], LIMITS, NOW)
        assert (found.park, found.close) == ([], [])


def test_a_batch_waits_for_pinned_models_and_is_refused_what_can_never_fit() -> None:
    found = plan([ready("a", is_pinned=True), lines("b")], LIMITS, NOW)
    assert (found.refuse, found.waiting) == ({}, ["b"])
    assert list(plan([lines("b", 11)], LIMITS, NOW).refuse) == ["b"]


def test_a_model_whose_jobs_are_on_hold_is_closed_for_others() -> None:
    """Jobs on its queue would prevent that it is parked."""
    assert plan([ready("a", has_frozen=True), waits("b")], LIMITS, NOW).close == ["a"]
    assert not plan([ModelView("a", Phase.ABSENT, GIB, has_frozen=True)], LIMITS, NOW).start
