"""What goes wrong with one sequence ends that sequence alone, on every engine."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from jobs.contract.errors import GrammarError
from jobs.contract.sampling import Sampling
from tests.engines.conftest import OpenEngine
from tests.engines.driving import GREEDY, SEEDED, chat, drain, ids_of, run_one, sequence
from tests.helpers.grammars import GETS_LOST, LETTERS, RUNS_FULL
from workers.engines.base import Engine, EngineOptions, Sequence, SequenceFailure, StepEvent, Token
from workers.text.grammar import GrammarCompiler

ABUSED = "What is 3 + 4?"
NEIGHBOURS = ["Who are you?", "Count from 1 to 9.", "Hello!"]
LENGTH = 20


class Breaking:
    """Allows everything, and raises ``error`` when asked for, or told of, a token too many."""

    def __init__(self, error: Exception, num_tokens: int, *, by_a_mask: bool) -> None:
        self._error = error
        self._num_left = num_tokens
        self._by_a_mask = by_a_mask

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        if self._by_a_mask and self._num_left == 0:
            raise self._error
        return None

    def accept(self, token_id: int) -> None:
        if self._num_left == 0:
            raise self._error
        self._num_left -= 1


by_place = pytest.mark.parametrize("by_a_mask", [True, False], ids=["mask", "accept"])
by_number = pytest.mark.parametrize("num_tokens", [0, 1, 5])


def abused(engine: Engine, breaking: Breaking, sampling: Sampling = GREEDY) -> Sequence:
    one = sequence(chat(engine, ABUSED), LENGTH, sampling)
    return dataclasses.replace(one, constraint=breaking)


def failures_of(events: list[StepEvent]) -> list[SequenceFailure]:
    return [event for event in events if isinstance(event, SequenceFailure)]


def drive(engine: Engine, *sequences: Sequence) -> list[StepEvent]:
    for one in sequences:
        engine.submit(one)
    return drain(engine)


@by_place
@by_number
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_a_constraint_that_raises_ends_its_own_sequence_only(
    engine: Engine, by_a_mask: bool, num_tokens: int, sampling: Sampling
) -> None:
    prompts = [chat(engine, text) for text in NEIGHBOURS]
    alone = [run_one(engine, prompt, LENGTH, sampling).ids for prompt in prompts]
    whole = run_one(engine, chat(engine, ABUSED), LENGTH, sampling).ids
    broken = abused(
        engine, Breaking(ValueError("a bug"), num_tokens, by_a_mask=by_a_mask), sampling
    )
    neighbours = [sequence(prompt, LENGTH, sampling) for prompt in prompts]
    events = drive(engine, neighbours[0], broken, *neighbours[1:])
    assert [ids_of(events, one.sequence_id) for one in neighbours] == alone
    assert ids_of(events, broken.sequence_id) == whole[:num_tokens]
    (failure,) = failures_of(events)
    assert (failure.sequence_id, failure.code) == (broken.sequence_id, "internal_error")
    assert "a bug" in failure.message
    assert not engine.has_work


@by_place
@by_number
def test_a_lone_sequence_that_fails_leaves_the_engine_to_the_next(
    engine: Engine, by_a_mask: bool, num_tokens: int
) -> None:
    whole = run_one(engine, chat(engine, ABUSED), LENGTH).ids
    error = GrammarError("grammar: too hard", "grammar")
    broken = abused(engine, Breaking(error, num_tokens, by_a_mask=by_a_mask))
    events = drive(engine, broken)
    id_ = broken.sequence_id
    assert failures_of(events) == [
        SequenceFailure(id_, "grammar: too hard", "grammar_failed", "grammar")
    ]
    assert events[-1] == failures_of(events)[0]
    assert not engine.has_work
    assert run_one(engine, chat(engine, ABUSED), LENGTH).ids == whole


@by_place
def test_all_sequences_of_a_batch_may_fail_at_once(engine: Engine, by_a_mask: bool) -> None:
    broken = [
        abused(engine, Breaking(ValueError("a bug"), 3, by_a_mask=by_a_mask)) for _ in range(3)
    ]
    events = drive(engine, *broken)
    assert {failure.sequence_id for failure in failures_of(events)} == {
        one.sequence_id for one in broken
    }
    assert not engine.has_work


@by_place
def test_its_slot_is_free_for_who_waits(open_with: OpenEngine, by_a_mask: bool) -> None:
    small = open_with(EngineOptions(num_slots=1))
    broken = abused(small, Breaking(ValueError("a bug"), 2, by_a_mask=by_a_mask))
    waiting = sequence(chat(small, "Hi"), 5)
    events = drive(small, broken, waiting)
    assert len(failures_of(events)) == 1
    assert ids_of(events, waiting.sequence_id) == run_one(small, waiting.prompt, 5).ids


@by_place
@by_number
@pytest.mark.parametrize("num_drafts", [1, 4])
def test_drafts_change_nothing_of_that(
    open_with: OpenEngine, backend: str, by_a_mask: bool, num_tokens: int, num_drafts: int
) -> None:
    drafting = open_with(EngineOptions(num_draft_tokens=num_drafts))
    prompt = chat(drafting, "Repeat after me: one two three one two three one two three")
    whole = run_one(drafting, prompt, 40).ids
    breaking = Breaking(ValueError("a bug"), num_tokens, by_a_mask=by_a_mask)
    broken = dataclasses.replace(sequence(prompt, 40), constraint=breaking)
    neighbour = sequence(prompt, 40)
    events = drive(drafting, broken, neighbour)
    assert ids_of(events, broken.sequence_id) == whole[:num_tokens]
    assert [failure.sequence_id for failure in failures_of(events)] == [broken.sequence_id]
    assert ids_of(events, neighbour.sequence_id) == whole


@pytest.mark.parametrize("grammar", [RUNS_FULL, GETS_LOST], ids=["by a token", "by a mask"])
def test_a_grammar_that_breaks_down_never_ends_a_text_with_a_stop(
    engine: Engine, grammar: object
) -> None:
    biases = dict.fromkeys(engine.tokenizer.end_ids, -1000.0)
    for letter in set(LETTERS.decode()):
        (token_id,) = engine.tokenizer.encode(letter, add_special=False, parse_special=False)
        biases[token_id] = 100.0
    sampling = Sampling(temperature=2.0, seed=3, logit_bias=biases)
    one = sequence(chat(engine, ABUSED), 200, sampling)
    constraint = GrammarCompiler(engine.tokenizer).compile(grammar)
    events = drive(engine, dataclasses.replace(one, constraint=constraint))
    (failure,) = failures_of(events)
    assert (failure.code, failure.param) == ("grammar_failed", "grammar")
    assert [e.finish for e in events if isinstance(e, Token) and e.finish is not None] == []


def test_a_mirostat_that_cannot_draw_ends_its_own_sequence_only(engine: Engine) -> None:
    """An estimate of ``mu`` that is no number, as of an event of an older version."""
    sampling = Sampling(temperature=1.0, mirostat_mode=1, mirostat_tau=3.0, seed=5)
    prompt = chat(engine, ABUSED)
    whole = run_one(engine, prompt, LENGTH).ids
    broken = dataclasses.replace(sequence(prompt, LENGTH, sampling), mirostat_mu=float("nan"))
    neighbour = sequence(prompt, LENGTH)
    events = drive(engine, broken, neighbour)
    assert ids_of(events, neighbour.sequence_id) == whole
    assert [failure.sequence_id for failure in failures_of(events)] == [broken.sequence_id]
