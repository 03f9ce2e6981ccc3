"""KV cells of its own for each slot: same texts, copied beginnings, whole contexts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.errors import ModelLoadError, UnsupportedParameterError
from tests.engines.driving import (
    Transcript,
    drain,
    ids_of,
    long_prompt,
    run,
    run_one,
    sequence,
)
from workers.engines.base import EngineOptions, Prefill, Sequence, StepEvent
from workers.engines.factory import open_engine
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.per_slot import PerSlotCells
from workers.engines.llama_cpp.cpu.tile_padding import TilePadding
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

MODELS = Path(__file__).parents[2] / "models"


def opened(**options: Any) -> LlamaCppEngine:
    given = EngineOptions(**{"kv_layout": "per_slot", **options})
    return open_llama_cpp(MODELS / "demo.gguf", given, lambda fraction: None)


@pytest.fixture
def engine() -> Iterator[LlamaCppEngine]:
    """Eight slots with the cells of a context of 500 tokens each."""
    engine = opened(context_length=500)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[LlamaCppEngine]:
    """Shared cells in which nothing is kept."""
    engine = opened(kv_layout="unified", prompt_cache_bytes=0)
    yield engine
    engine.close()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each decode pass got."""
    counts: list[int] = []
    monkeypatch.setattr(lib, "llama_decode", _counting(lib.llama_decode, counts))
    return counts


def _counting(decode: Any, counts: list[int]) -> Any:
    def counting(context: Any, batch: Any) -> int:
        counts.append(batch.n_tokens)
        return int(decode(context, batch))

    return counting


def prompts_of(engine: LlamaCppEngine, count: int, length: int = 40) -> list[list[int]]:
    """Prompts that differ from the first token on."""
    text = long_prompt(engine, length)
    return [[40 + number, *text[: length - 1]] for number in range(count)]


def test_each_slot_has_the_cells_of_a_whole_context(engine: LlamaCppEngine) -> None:
    assert isinstance(engine._memory, PerSlotCells)
    assert engine._memory.max_length == 512, "llama.cpp rounds up"
    texts = run(engine, [sequence([40 + i] * 20, 1000) for i in range(8)])
    assert [len(text.ids) for text in texts] == [480] * 8


def test_shared_cells_are_the_default() -> None:
    engine = opened(kv_layout=None)
    assert not engine._memory.is_per_slot
    engine.close()


def test_it_is_refused_by_name_where_there_are_no_such_cells() -> None:
    with pytest.raises(UnsupportedParameterError) as refusal:
        open_engine(
            "mlx", MODELS / "demo", EngineOptions(kv_layout="per_slot"), lambda fraction: None
        )
    assert refusal.value.param == "kv_layout"


def test_too_little_memory_for_the_cells_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "llama_init_from_model", lambda model, params: None)
    with pytest.raises(ModelLoadError, match="no memory for a context of 500 tokens"):
        opened(context_length=500)


def test_the_next_turn_goes_on_in_its_own_slot(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of(engine, 3, 100)
    first = [run_one(engine, prompt, 4) for prompt in prompts]
    with monkeypatch.context() as patch:
        patch.setattr(PerSlotCells, "copy_out", None)  # nothing is copied
        for prompt, turn in zip(prompts, first, strict=True):
            again = run_one(engine, [*prompt, *turn.ids, 41, 42], 4)
            assert again.prefills[-1].num_cached == 103


def test_what_is_kept_leaves_for_who_needs_the_slot(
    engine: LlamaCppEngine, alone: LlamaCppEngine
) -> None:
    prompts = prompts_of(engine, 12, 100)
    for prompt in prompts:
        run_one(engine, prompt, 4)
    assert len(engine._prefixes) == 8
    again = run_one(engine, [*prompts[0], 41], 10)
    assert again.prefills[-1].num_cached == 100
    assert again.ids == run_one(alone, [*prompts[0], 41], 10).ids


def test_a_beginning_that_another_one_has_is_copied(
    engine: LlamaCppEngine, alone: LlamaCppEngine
) -> None:
    prompt = long_prompt(engine, 150)
    one, other = sequence(prompt, 60), sequence([*prompt[:100], 41, 42], 60)
    events: list[StepEvent] = []
    engine.submit(one)
    while not ids_of(events, one.sequence_id):
        events += engine.step()
    engine.submit(other)
    events += drain(engine)
    prefills = [e for e in events if isinstance(e, Prefill)]
    assert [e.num_cached for e in prefills if e.sequence_id == other.sequence_id] == [100]
    for each in (one, other):
        assert ids_of(events, each.sequence_id) == run_one(alone, each.prompt, 60).ids


def test_a_short_common_beginning_is_read_again(engine: LlamaCppEngine) -> None:
    prompt = long_prompt(engine, 150)
    run_one(engine, prompt, 2)
    assert run_one(engine, [*prompt[:20], 41, 42], 2).prefills[-1].num_cached == 0


def test_random_company_changes_no_text(engine: LlamaCppEngine, alone: LlamaCppEngine) -> None:
    """Sequences of all lengths come and leave."""
    draw = random.Random(3)
    text = long_prompt(engine, 400)
    waiting: list[Sequence] = []
    for number in range(60):
        length = 350 if number % 12 == 5 else draw.randrange(2, 180)
        waiting.append(sequence([40 + number % 50, *text[: length - 1]], draw.randrange(5, 60)))
    ones = {one.sequence_id: one for one in waiting}
    transcripts = {sequence_id: Transcript() for sequence_id in ones}
    aborted: set[int] = set()
    while waiting or engine.has_work:
        if waiting and draw.random() < (1.0 if not engine.has_work else 0.08):
            engine.submit(waiting.pop(0))
        if draw.random() < 0.02 and engine._scheduler.running:
            run_ = draw.choice(engine._scheduler.running)
            aborted.add(run_.sequence.sequence_id)
            engine.abort(run_.sequence.sequence_id)
        for event in engine.step():
            transcript = transcripts[event.sequence_id]
            if not isinstance(event, Prefill):
                transcript.tokens.append(event)
    assert len(aborted) >= 3
    for sequence_id, one in ones.items():
        got = transcripts[sequence_id].ids
        expected = run_one(alone, one.prompt, one.max_tokens).ids
        assert got == expected[: len(got)]
        assert len(got) == len(expected) or sequence_id in aborted


@pytest.mark.parametrize("kv_layout", ["unified", "per_slot"])
def test_a_short_piece_is_read_as_a_tile(
    alone: LlamaCppEngine,
    rows: list[int],
    monkeypatch: pytest.MonkeyPatch,
    kv_layout: str,
) -> None:
    engine = opened(kv_layout=kv_layout)
    history = long_prompt(engine, 700)
    question = [*history, *long_prompt(engine, 60)[:50]]
    monkeypatch.setattr(TilePadding, "num_missing", lambda *_: 0)
    plain = run_one(engine, question, 20)
    engine._prefixes.evict_all()
    monkeypatch.undo()
    run_one(engine, history, 1)
    before = engine._memory.num_free
    rows.clear()
    monkeypatch.setattr(lib, "llama_decode", _counting(lib.llama_decode, rows))
    text = run_one(engine, question, 20)
    assert rows[0] == 64
    assert text.prefills[-1].num_cached == 700
    assert text.ids == plain.ids == run_one(alone, question, 20).ids
    assert before - engine._memory.num_free == 50 + 19
    engine.close()


def test_no_tile_where_its_rows_have_no_cells(rows: list[int]) -> None:
    engine = opened(context_length=256, num_slots=2)
    history = long_prompt(engine, 200)
    run_one(engine, history, 1)
    rows.clear()
    assert len(run_one(engine, [*history, *history[:50]], 3).ids) == 3
    assert rows[0] == 50
    engine.close()
