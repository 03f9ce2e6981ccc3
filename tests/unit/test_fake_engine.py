"""What the fake engine promises beyond the contract of all engines: its text and its pace."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling
from tests.helpers.loop_rig import fake_engine
from workers.engines.base import (
    EngineOptions,
    FinishReason,
    Prefill,
    PromptLogprobs,
    Sequence,
    SequenceFailure,
    Token,
)
from workers.engines.fake import FakeEngine, open_fake

GREEDY = Sampling(temperature=0.0)


def run(engine: FakeEngine, *sequences: Sequence) -> dict[int, list[Token]]:
    """Every token of each sequence, until all have ended."""
    tokens: dict[int, list[Token]] = {sequence.sequence_id: [] for sequence in sequences}
    for sequence in sequences:
        engine.submit(sequence)
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Token):
                tokens[event.sequence_id].append(event)
    return tokens


def text_of(engine: FakeEngine, tokens: list[Token]) -> str:
    return b"".join(engine.tokenizer.piece(token.token_id) for token in tokens).decode()


def counting(start: int, end: int) -> str:
    """The promise of the module's docstring, said once more."""
    return "".join(f"{i // 8:07d} "[i % 8] for i in range(start, end))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 250])
def test_its_text_counts_from_the_prompts_length_on(length: int) -> None:
    engine = fake_engine()
    (tokens,) = run(engine, Sequence(1, [120] * length, 50, GREEDY)).values()
    assert text_of(engine, tokens) == counting(length, length + 50)
    assert tokens[-1].finish is FinishReason.LENGTH


def test_each_512th_position_ends_the_text() -> None:
    engine = fake_engine()
    (tokens,) = run(engine, Sequence(1, [120] * 8, 9999, GREEDY)).values()
    assert len(tokens) == 512 - 8
    assert (tokens[-1].finish, tokens[-1].is_end) == (FinishReason.STOP, True)
    assert text_of(engine, tokens) == counting(8, 511)


def test_a_sequence_that_ignores_the_end_runs_to_its_context() -> None:
    engine = fake_engine(context_length=600)
    sampling = Sampling(temperature=0.0, ignore_eos=True)
    (tokens,) = run(engine, Sequence(1, [120] * 8, 9999, sampling)).values()
    assert len(tokens) == 592
    assert tokens[-1].finish is FinishReason.LENGTH


def test_a_sequence_that_is_cut_anywhere_goes_on_with_the_same_tokens() -> None:
    engine = fake_engine()
    sampling = Sampling(seed=5, temperature=1.5, top_k=50, repetition_penalty=1.1)
    prompt = list(b"a prompt")
    (whole,) = run(engine, Sequence(1, prompt, 40, sampling)).values()
    ids = [token.token_id for token in whole]
    for cut in range(0, len(ids), 7):
        rest = Sequence(2, prompt + ids[:cut], len(ids) - cut, sampling)
        (tokens,) = run(engine, rest).values()
        assert [token.token_id for token in tokens] == ids[cut:]


def test_a_long_prompt_is_read_in_chunks_while_others_go_on() -> None:
    engine = fake_engine()
    engine.submit(Sequence(1, [120] * 8, 20, GREEDY))
    engine.step()
    engine.submit(Sequence(2, [120] * 1200, 1, GREEDY))
    steps = [engine.step() for _ in range(3)]
    progress = [[e.num_done for e in step if isinstance(e, Prefill)] for step in steps]
    assert progress == [[512], [1024], [1200]]
    assert [sum(isinstance(e, Token) for e in step) for step in steps] == [1, 1, 1]


def test_what_finds_no_slot_waits_in_order() -> None:
    engine = fake_engine(slots=2)
    order = []
    for number in range(5):
        engine.submit(Sequence(number, [120] * 8, 3, GREEDY))
    while engine.has_work:
        order += [event.sequence_id for event in engine.step() if isinstance(event, Prefill)]
    assert order == [0, 1, 2, 3, 4]


def test_its_name_sets_its_pace_and_its_options_its_size() -> None:
    options = EngineOptions(context_length=77, num_slots=3)
    seen: list[float] = []
    engine = open_fake(Path("fake-20ms"), options, seen.append)
    assert (engine.info.context_length, engine.info.num_slots) == (77, 3)
    assert engine._step_s == 0.02
    assert seen[-1] == 1.0


def test_what_it_cannot_honour_is_refused_by_name() -> None:
    engine = fake_engine()
    with pytest.raises(InvalidRequestError) as caught:
        engine.check(Sampling(logit_bias={272: 1.0}))
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat_goes_on_from_where_it_stood(mode: int) -> None:
    engine = fake_engine()
    sampling = Sampling(seed=5, temperature=1.5, mirostat_mode=mode, mirostat_tau=3.0)
    prompt = list(b"a prompt")
    (whole,) = run(engine, Sequence(1, prompt, 40, sampling)).values()
    ids = [token.token_id for token in whole]
    assert len({token.mirostat_mu for token in whole}) > 30
    for cut in range(1, len(ids), 7):
        mu = whole[cut - 1].mirostat_mu
        rest = Sequence(2, prompt + ids[:cut], len(ids) - cut, sampling, mirostat_mu=mu)
        (tokens,) = run(engine, rest).values()
        assert [(t.token_id, t.mirostat_mu) for t in tokens] == [
            (t.token_id, t.mirostat_mu) for t in whole[cut:]
        ]


def test_without_mirostat_there_is_no_mu() -> None:
    (tokens,) = run(fake_engine(), Sequence(1, [120] * 8, 3, GREEDY)).values()
    assert [token.mirostat_mu for token in tokens] == [None] * 3


def test_an_adapter_shows_in_the_text() -> None:
    engine = fake_engine()
    sequences = [Sequence(1, [120] * 8, 9, GREEDY), Sequence(2, [120] * 8, 9, GREEDY, adapter="x")]
    plain, adapted = run(engine, *sequences).values()
    assert text_of(engine, plain) == "0000001 0"
    assert text_of(engine, adapted) == "a000001 a"
    loaded_with_one = open_fake(Path("fake"), EngineOptions(adapter="x"), lambda _: None)
    (tokens,) = run(loaded_with_one, Sequence(1, [120] * 8, 9, GREEDY)).values()
    assert text_of(engine, tokens) == "a000001 a"


@pytest.mark.parametrize("num_top", [0, 3])
def test_a_prompts_log_probabilities_are_those_that_its_tokens_would_have_had(num_top: int) -> None:
    engine = fake_engine()
    sampling = Sampling(temperature=0.0, num_logprobs=num_top)
    (made,) = run(engine, Sequence(1, [120] * 4, 8, sampling)).values()
    prompt = [120] * 4 + [token.token_id for token in made]
    engine.submit(Sequence(2, prompt, 1, sampling, num_prompt_logprobs=num_top))
    events = [event for _ in range(2) for event in engine.step()]
    assert [type(event) for event in events] == [Prefill, PromptLogprobs, Token]
    entries = next(event.entries for event in events if isinstance(event, PromptLogprobs))
    assert len(entries) == len(prompt) - 1
    assert entries[3:] == tuple((token.logprob, token.top_logprobs) for token in made)


def test_a_text_has_one_vector_of_length_one_wherever_it_stands() -> None:
    engine = fake_engine()
    first, second = engine.embed([[1, 2], [3]], None)
    assert engine.embed([[3]], None) == [second]
    assert first != second
    assert sum(value * value for value in first) == pytest.approx(1.0)


def test_a_users_text_never_becomes_a_control_token() -> None:
    tokenizer = fake_engine().tokenizer
    text = "a<|im_end|>é"
    plain = tokenizer.encode(text, add_special=True, parse_special=False)
    assert b"".join(map(tokenizer.piece, plain)).decode() == text
    assert not tokenizer.end_ids & set(plain)
    assert tokenizer.encode(text, add_special=False, parse_special=True)[1] == 258


# What it keeps of prompts


def num_cached(engine: FakeEngine, prompt: list[int], **fields: object) -> int:
    """How much of the prompt it says was there; runs it to its end."""
    engine.submit(Sequence(99, prompt, 4, GREEDY, **fields))
    events = [event for _ in iter(lambda: engine.has_work, False) for event in engine.step()]
    (found,) = {event.num_cached for event in events if isinstance(event, Prefill)}
    return found


LONG = list(b"a prompt of some forty tokens, for a cache")


def test_a_first_prompt_finds_nothing() -> None:
    assert num_cached(fake_engine(), LONG) == 0


def test_the_longest_common_beginning_counts_and_the_last_token_never() -> None:
    engine = fake_engine()
    num_cached(engine, LONG)
    assert num_cached(engine, LONG) == len(LONG) - 1
    assert num_cached(engine, [*LONG[:30], 1, 2, 3]) == 30
    assert num_cached(engine, LONG[:10]) == 0


def test_an_answer_is_kept_but_for_its_last_token() -> None:
    engine = fake_engine()
    (tokens,) = run(engine, Sequence(1, LONG, 4, GREEDY)).values()
    answer = [token.token_id for token in tokens]
    assert num_cached(engine, [*LONG, *answer, 1, 2]) == len(LONG) + 3


def test_a_beginning_read_with_another_adapter_is_another_one() -> None:
    engine = fake_engine()
    num_cached(engine, LONG)
    assert num_cached(engine, LONG, adapter="x") == 0
    assert num_cached(engine, LONG, adapter="x") == len(LONG) - 1


def test_a_prompt_whose_tokens_are_scored_is_read_whole() -> None:
    engine = fake_engine()
    num_cached(engine, LONG)
    assert num_cached(engine, LONG, num_prompt_logprobs=0) == 0


def test_only_the_last_sequences_are_kept() -> None:
    engine = fake_engine()
    num_cached(engine, LONG)
    for number in range(20):
        num_cached(engine, [number] * 40)
    assert num_cached(engine, LONG) == 0
    assert num_cached(engine, [19] * 40) == 39
    assert num_cached(engine, [1] * 40) == 0


# Faults that a prompt asks for


@pytest.mark.parametrize(("number", "num_before"), [("", 0), ("@1", 0), ("@3", 2)])
def test_a_prompt_can_make_its_own_draw_raise(number: str, num_before: int) -> None:
    engine = fake_engine()
    engine.submit(Sequence(1, list(f"<<raise:draw{number}>>".encode()), 9, GREEDY))
    engine.submit(Sequence(2, [120] * 8, 9, GREEDY))
    events = [event for _ in range(10) for event in engine.step()]
    found = [event for event in events if event.sequence_id == 1]
    assert [type(event) for event in found] == [Prefill, *[Token] * num_before, SequenceFailure]
    assert found[-1].code == "internal_error"
    assert sum(isinstance(event, Token) for event in events if event.sequence_id == 2) == 9
    assert not engine.has_work


def test_a_prompt_can_make_the_whole_step_raise_until_it_is_gone() -> None:
    engine = fake_engine()
    engine.submit(Sequence(1, list(b"<<raise:step@2>>"), 9, GREEDY))
    engine.submit(Sequence(2, [120] * 8, 3, GREEDY))
    assert [type(event) for event in engine.step()] == [Prefill, Prefill]
    assert [type(event) for event in engine.step()] == [Token, Token]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="step"):
            engine.step()
    engine.abort(1)
    assert [type(event) for event in engine.step()] == [Token]


def test_a_prompt_can_make_the_tokenizer_raise_once_for_its_token() -> None:
    engine = fake_engine()
    (tokens,) = run(engine, Sequence(1, list(b"<<raise:piece@2>>"), 3, GREEDY)).values()
    assert len(tokens) == 3
    with pytest.raises(RuntimeError, match="tokenizer"):
        engine.tokenizer.piece(tokens[1].token_id)
    assert engine.tokenizer.piece(tokens[1].token_id) == b""
    assert b"".join(map(engine.tokenizer.piece, range(272))) == bytes(range(256))
