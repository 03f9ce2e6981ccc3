"""Texts that follow a grammar."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.sampling import Sampling
from tests.engines.conftest import OpenEngine
from tests.engines.driving import Transcript, chat, run, sequence
from workers.engines.base import Engine, EngineOptions, FinishReason, Sequence
from workers.text.grammar import GrammarCompiler

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA))
DIGITS = Grammar(GrammarKind.REGEX, "[0-9]{3}-[0-9]{2}")
COLOUR = Grammar(GrammarKind.CHOICE, '["red", "green", "blue green"]')
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "seeded": Sampling(temperature=0.8, top_k=20, seed=5),
    "penalised": Sampling(temperature=0.8, repetition_penalty=1.3, top_p=0.9, seed=5),
    "mirostat": Sampling(temperature=0.8, mirostat_mode=2, mirostat_tau=3.0, seed=5),
    "xtc and dry": Sampling(
        temperature=0.8, xtc_probability=0.5, xtc_threshold=1e-6, dry_multiplier=0.8, seed=5
    ),
}


@pytest.fixture(scope="module")
def compiler(shared_engine: Engine) -> GrammarCompiler:
    return GrammarCompiler(shared_engine.tokenizer)


def constrained(
    compiler: GrammarCompiler, prompt: list[int], grammar: Grammar | None, sampling: Sampling
) -> Sequence:
    one = sequence(prompt, 80, sampling)
    if grammar is None:
        return one
    return dataclasses.replace(one, constraint=compiler.compile(grammar))


def text_of(engine: Engine, transcript: Transcript) -> str:
    pieces = (engine.tokenizer.piece(t.token_id) for t in transcript.tokens if not t.is_end)
    return b"".join(pieces).decode(errors="replace")


class Anything:
    """A grammar that forbids nothing."""

    def allowed(self) -> None:
        return None

    def accept(self, token_id: int) -> None:
        pass


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_a_grammar_that_forbids_nothing_changes_nothing(engine: Engine, sampling: Sampling) -> None:
    free = sequence(chat(engine, "Tell me a story, please."), 60, sampling)
    held = dataclasses.replace(free, constraint=Anything())
    assert run(engine, [held])[0].ids == run(engine, [free])[0].ids


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_different_grammars_in_one_batch(
    engine: Engine, compiler: GrammarCompiler, sampling: Sampling
) -> None:
    prompt = chat(engine, "Tell me a story, please.")
    grammars = [PERSON, None, DIGITS, COLOUR, PERSON]
    transcripts = run(engine, [constrained(compiler, prompt, one, sampling) for one in grammars])
    texts = [text_of(engine, one) for one in transcripts]
    for text in (texts[0], texts[4]):
        person = json.loads(text)
        assert set(person) == {"name", "age"}
        assert isinstance(person["age"], int)
    assert re.fullmatch("[0-9]{3}-[0-9]{2}", texts[2])
    assert texts[3] in ("red", "green", "blue green")
    assert {t.finish for i, t in enumerate(transcripts) if i != 1} == {FinishReason.STOP}


def test_the_neighbour_without_a_grammar_does_not_notice(
    engine: Engine, compiler: GrammarCompiler
) -> None:
    prompt = chat(engine, "Count from 1 to 9.")
    (alone,) = run(engine, [sequence(prompt, 40)])
    beside = run(
        engine,
        [sequence(prompt, 40), constrained(compiler, prompt, PERSON, SAMPLINGS["seeded"])],
    )
    assert beside[0].ids == alone.ids


def test_a_text_that_was_cut_goes_on_where_its_grammar_stood(
    engine: Engine, compiler: GrammarCompiler
) -> None:
    prompt = chat(engine, "Tell me a story, please.")
    sampling = SAMPLINGS["seeded"]
    (whole,) = run(engine, [constrained(compiler, prompt, PERSON, sampling)])
    for cut in range(1, len(whole.ids)):
        constraint = compiler.compile(PERSON)
        for token_id in whole.ids[:cut]:
            constraint.accept(token_id)
        rest = sequence([*prompt, *whole.ids[:cut]], 80, sampling)
        (continued,) = run(engine, [dataclasses.replace(rest, constraint=constraint)])
        assert whole.ids[:cut] + continued.ids == whole.ids


def test_guesses_change_no_constrained_text(
    open_with: OpenEngine, engine: Engine, compiler: GrammarCompiler
) -> None:
    drafting = open_with(EngineOptions(num_draft_tokens=4))
    prompt = chat(engine, "Repeat after me: name age name age")
    for sampling in SAMPLINGS.values():
        (plain,) = run(engine, [constrained(compiler, prompt, PERSON, sampling)])
        (drafted,) = run(drafting, [constrained(compiler, prompt, PERSON, sampling)])
        assert drafted.ids == plain.ids
