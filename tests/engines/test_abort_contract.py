"""What an abort does, on every engine: the slot is free, the neighbours notice nothing."""

from __future__ import annotations

from tests.engines.conftest import OpenEngine
from tests.engines.driving import (
    chat,
    drain,
    ids_of,
    long_prompt,
    run,
    run_one,
    sequence,
    step_until,
)
from workers.engines.base import Engine, EngineOptions, Prefill


def test_aborting_in_the_middle_leaves_the_neighbour_alone(engine: Engine) -> None:
    prompt = chat(engine, "Tell me a story.")
    undisturbed = run_one(engine, prompt, 20).ids
    kept, gone = sequence(prompt, 20), sequence(chat(engine, "Count from 1 to 9."), 20)
    engine.submit(gone)
    engine.submit(kept)
    step_until(engine, gone.sequence_id, 1)
    events = engine.step()
    engine.abort(gone.sequence_id)
    rest = drain(engine)
    assert ids_of(rest, gone.sequence_id) == []
    later = ids_of(events + rest, kept.sequence_id)
    assert later == undisturbed[-len(later) :]
    assert len(later) >= 18


def test_aborting_in_the_middle_of_a_prompt_frees_the_slot(open_with: OpenEngine) -> None:
    fresh = open_with(EngineOptions(num_slots=1))
    gone, following = sequence(long_prompt(fresh, 1500), 5), sequence(chat(fresh, "Hi"), 5)
    fresh.submit(gone)
    fresh.submit(following)
    progress = [event for event in fresh.step() if isinstance(event, Prefill)]
    assert 0 < progress[-1].num_done < progress[-1].num_total
    fresh.abort(gone.sequence_id)
    events = drain(fresh)
    assert ids_of(events, gone.sequence_id) == []
    assert ids_of(events, following.sequence_id) == run_one(fresh, following.prompt, 5).ids


def test_aborting_while_decoding_frees_the_slot(open_with: OpenEngine) -> None:
    small = open_with(EngineOptions(num_slots=1))
    gone, following = sequence(chat(small, "Hello!"), 500), sequence(chat(small, "Hi"), 5)
    small.submit(gone)
    small.submit(following)
    step_until(small, gone.sequence_id, 3)
    small.abort(gone.sequence_id)
    events = drain(small)
    assert {event.sequence_id for event in events} == {following.sequence_id}
    assert len(ids_of(events, following.sequence_id)) == 5


def test_a_waiting_sequence_can_be_aborted(open_with: OpenEngine) -> None:
    small = open_with(EngineOptions(num_slots=1))
    first, gone, last = (sequence(chat(small, "Hello!"), 4) for _ in range(3))
    for one in (first, gone, last):
        small.submit(one)
    small.abort(gone.sequence_id)
    events = drain(small)
    assert ids_of(events, gone.sequence_id) == []
    assert ids_of(events, first.sequence_id) == ids_of(events, last.sequence_id)


def test_aborting_what_is_not_there_is_ignored(engine: Engine) -> None:
    engine.abort(-1)
    done = sequence(chat(engine, "Hi"), 1)
    run(engine, [done])
    engine.abort(done.sequence_id)
    assert not engine.has_work
