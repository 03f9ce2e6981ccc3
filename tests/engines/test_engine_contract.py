"""What every engine does, whatever is under it."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling
from tests.engines.conftest import OpenEngine
from tests.engines.driving import (
    GREEDY,
    SEEDED,
    Transcript,
    chat,
    drain,
    ids_of,
    long_prompt,
    next_token,
    pieces_between,
    run,
    run_one,
    sequence,
    step_until,
)
from workers.engines.base import (
    Engine,
    EngineOptions,
    FinishReason,
    Prefill,
    StepEvent,
    Token,
)

QUESTIONS = [
    "What is 3 + 4?",
    "Who are you?",
    "Count from 1 to 9.",
    "Tell me a story.",
    "Hello!",
    "What is 20 - 5?",
    "Repeat: blue fish",
    "List three colors.",
]
SETTINGS = {
    "greedy": GREEDY,
    "seeded": SEEDED,
    "penalties": msgspec.structs.replace(
        GREEDY, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.2
    ),
    "xtc": msgspec.structs.replace(
        SEEDED, seed=11, xtc_probability=0.5, xtc_threshold=1e-6, dynatemp_range=0.2
    ),
    "dry": msgspec.structs.replace(GREEDY, dry_multiplier=2.0, dry_allowed_length=1),
}
by_setting = pytest.mark.parametrize("sampling", SETTINGS.values(), ids=SETTINGS)


def prompts(engine: Engine) -> list[list[int]]:
    return [chat(engine, question) for question in QUESTIONS]


# Texts


@by_setting
def test_company_does_not_change_a_text(engine: Engine, sampling: Sampling) -> None:
    together = run(engine, [sequence(prompt, 16, sampling) for prompt in prompts(engine)])
    alone = [run_one(engine, prompt, 16, sampling) for prompt in prompts(engine)]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_settings_of_a_neighbour_do_not_leak(engine: Engine) -> None:
    prompt = chat(engine, QUESTIONS[0])
    mixed = run(engine, [sequence(prompt, 10, sampling) for sampling in SETTINGS.values()])
    alone = [run_one(engine, prompt, 10, sampling) for sampling in SETTINGS.values()]
    assert [one.ids for one in mixed] == [one.ids for one in alone]


def test_another_seed_gives_another_text(engine: Engine) -> None:
    prompt = chat(engine, QUESTIONS[3])
    hot = [Sampling(temperature=4.0, seed=seed) for seed in (1, 2, 2**63, 2**64 - 1)]
    assert len({tuple(run_one(engine, prompt, 16, sampling).ids) for sampling in hot}) == 4


def test_the_same_seed_gives_the_same_text(engine: Engine) -> None:
    prompt = chat(engine, QUESTIONS[3])
    hot = Sampling(temperature=4.0, seed=5)
    assert run_one(engine, prompt, 16, hot).ids == run_one(engine, prompt, 16, hot).ids


@by_setting
@pytest.mark.parametrize("num_kept", [1, 7])
def test_a_text_cut_anywhere_goes_on_the_same(
    engine: Engine, sampling: Sampling, num_kept: int
) -> None:
    prompt = chat(engine, QUESTIONS[2])
    whole = run_one(engine, prompt, 14, sampling).ids
    rest = run_one(engine, prompt + whole[:num_kept], 14 - num_kept, sampling).ids
    assert whole[:num_kept] + rest == whole


# Ends


def test_max_tokens_ends_with_length(engine: Engine) -> None:
    transcript = run_one(engine, chat(engine, QUESTIONS[3]), 5)
    assert len(transcript.tokens) == 5
    assert [token.finish for token in transcript.tokens] == [None] * 4 + [FinishReason.LENGTH]
    assert not engine.has_work


def test_an_end_token_ends_with_stop(engine: Engine) -> None:
    end_id = min(engine.tokenizer.end_ids)
    forced = Sampling(temperature=0.0, logit_bias={end_id: 1000.0})
    transcript = run_one(engine, chat(engine, "Hi"), 5, forced)
    assert transcript.ids == [end_id]
    assert transcript.tokens[0].is_end
    assert transcript.finish is FinishReason.STOP


def test_an_end_token_as_the_last_allowed_one_still_ends_with_stop(engine: Engine) -> None:
    end_id = min(engine.tokenizer.end_ids)
    forced = Sampling(temperature=0.0, logit_bias={end_id: 1000.0})
    assert run_one(engine, chat(engine, "Hi"), 1, forced).finish is FinishReason.STOP


def test_ignoring_the_end_generates_to_the_limit(engine: Engine) -> None:
    end_id = min(engine.tokenizer.end_ids)
    sampling = Sampling(temperature=0.0, logit_bias={end_id: 100.0}, ignore_eos=True)
    transcript = run_one(engine, chat(engine, "Hi"), 6, sampling)
    assert len(transcript.tokens) == 6
    assert transcript.finish is FinishReason.LENGTH


def test_a_full_context_ends_with_length_and_leaves_neighbours_alone(
    engine: Engine, open_with: OpenEngine
) -> None:
    small = open_with(EngineOptions(context_length=64, num_slots=2))
    assert small.info.context_length == 64
    prompt = chat(engine, QUESTIONS[0])
    full, neighbour = run(small, [sequence(long_prompt(small, 54), 99), sequence(prompt, 20)])
    assert len(full.tokens) == 10
    assert full.finish is FinishReason.LENGTH
    assert neighbour.ids == run_one(engine, prompt, 20).ids


# Order, steps, progress


def test_without_work_a_step_yields_nothing(engine: Engine) -> None:
    assert engine.step() == []
    assert not engine.has_work


def test_a_prompt_of_one_token_runs(engine: Engine) -> None:
    transcript = run_one(engine, chat(engine, "Hi")[:1], 3)
    assert len(transcript.tokens) == 3
    assert [(p.num_done, p.num_total) for p in transcript.prefills] == [(1, 1)]


def test_prefill_events_grow_to_the_whole_prompt(engine: Engine) -> None:
    lengths = [1, 30, 700]
    for length, transcript in zip(
        lengths, run(engine, [sequence(long_prompt(engine, n), 2) for n in lengths]), strict=True
    ):
        done = [event.num_done for event in transcript.prefills]
        assert done == sorted(set(done))
        assert done[-1] == length
        assert {event.num_total for event in transcript.prefills} == {length}
        assert {event.num_cached for event in transcript.prefills} <= set(range(length))


def test_a_step_yields_at_most_one_token_per_sequence(engine: Engine) -> None:
    for transcript in run(engine, [sequence(prompt, 8) for prompt in prompts(engine)]):
        assert len(set(transcript.steps)) == len(transcript.steps)


def test_more_sequences_than_slots_all_finish_in_order(open_with: OpenEngine) -> None:
    small = open_with(EngineOptions(num_slots=2))
    lengths = [9, 3, 6, 2, 4, 1, 5]
    transcripts = run(small, [sequence(chat(small, "Hello!"), n) for n in lengths])
    assert [len(one.tokens) for one in transcripts] == lengths
    first_steps = [one.steps[0] for one in transcripts]
    assert first_steps == sorted(first_steps)
    assert first_steps[2] > min(transcripts[0].steps[-1], transcripts[1].steps[-1])


def test_slots_are_as_many_as_asked_for(open_with: OpenEngine) -> None:
    small = open_with(EngineOptions(num_slots=3))
    assert small.info.num_slots == 3
    transcripts = run(small, [sequence(chat(small, "Hello!"), 6) for _ in range(3)])
    assert max(one.steps[0] for one in transcripts) < min(one.steps[-1] for one in transcripts)


def test_a_long_prompt_does_not_stop_the_others(open_with: OpenEngine) -> None:
    fresh = open_with(EngineOptions())
    talker = sequence(chat(fresh, QUESTIONS[3]), 1000)
    late = sequence(long_prompt(fresh, 1200), 1)
    fresh.submit(talker)
    step_until(fresh, talker.sequence_id, 1)
    fresh.submit(late)
    steps: list[list[StepEvent]] = []
    while not steps or not ids_of(steps[-1], late.sequence_id):
        steps.append(fresh.step())
    pieces = pieces_between(steps, [late.sequence_id], talker.sequence_id)
    assert sum(pieces) > 1
    assert max(pieces) == 1
    fresh.abort(talker.sequence_id)


# Information and errors


def test_the_model_tells_its_facts(engine: Engine, backend: str) -> None:
    info = engine.info
    assert info.backend == backend
    assert info.vocab_size == engine.tokenizer.vocab_size
    assert info.num_slots >= 2
    assert info.context_length >= 2048
    assert {f.name for f in dataclasses.fields(info)} >= {"architecture", "quantization"}


def test_a_bias_outside_the_vocabulary_is_refused_by_name(engine: Engine) -> None:
    for token_id in (-1, engine.info.vocab_size, 2**40):
        with pytest.raises(InvalidRequestError) as caught:
            engine.check(Sampling(logit_bias={token_id: 1.0}))
        assert caught.value.param == "logit_bias"


def test_neutral_settings_are_accepted(engine: Engine) -> None:
    engine.check(Sampling())
    engine.check(SEEDED)


def test_every_token_says_whose_it_is(engine: Engine) -> None:
    one = sequence(chat(engine, "Hi"), 3)
    engine.submit(one)
    events = drain(engine)
    assert {event.sequence_id for event in events} == {one.sequence_id}
    assert all(isinstance(event, Token | Prefill) for event in events)


def test_an_idle_engine_starts_again(engine: Engine) -> None:
    first: Transcript = run_one(engine, chat(engine, "Hi"), 3)
    assert engine.step() == []
    assert run_one(engine, chat(engine, "Hi"), 3).ids == first.ids
    assert next_token(engine, chat(engine, "Hi"), GREEDY).token_id == first.ids[0]
