"""KV cells in a range for each slot, or in one pool: who runs keeps its text when they change."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.errors import ModelLoadError
from tests.engines.driving import (
    Transcript,
    drain,
    ids_of,
    long_prompt,
    run,
    run_one,
    sequence,
    step_until,
)
from workers.engines.base import EngineOptions, Prefill, Sequence, StepEvent
from workers.engines.llama_cpp import layout
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.pool import Pool
from workers.engines.llama_cpp.cpu.tile_padding import Tiles
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp
from workers.engines.llama_cpp.load import context, loaded_model
from workers.engines.llama_cpp.slot_ranges import SlotRanges

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
RANGE = 256


def opened(**options: Any) -> LlamaCppEngine:
    return open_llama_cpp(DEMO, EngineOptions(**options), lambda fraction: None)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaCppEngine]:
    """Eight slots with ranges of 256 tokens, or a pool of 2,048, for sequences of up to 1,500."""
    monkeypatch.setattr(context, "POOL_CELLS", 8 * RANGE)
    engine = opened(context_length=1500)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[LlamaCppEngine]:
    """A pool that nothing is kept in."""
    engine = opened(prompt_cache_bytes=0)
    yield engine
    engine.close()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of ``llama_decode`` got."""
    counts: list[int] = []
    monkeypatch.setattr(lib, "llama_decode", _counting(lib.llama_decode, counts))
    return counts


def _counting(decode: Any, counts: list[int]) -> Any:
    def counting(context: Any, batch: Any) -> int:
        counts.append(batch.n_tokens)
        return int(decode(context, batch))

    return counting


def has_ranges(engine: LlamaCppEngine) -> bool:
    return engine._memory.has_ranges


def prompts_of(engine: LlamaCppEngine, count: int, length: int = 40) -> list[list[int]]:
    """Prompts that differ from the first token on."""
    text = long_prompt(engine, length)
    return [[40 + number, *text[: length - 1]] for number in range(count)]


def test_each_slot_has_a_range_while_all_fit(engine: LlamaCppEngine) -> None:
    assert has_ranges(engine)
    assert engine._memory.longest == RANGE
    assert engine._memory.num_cells == 8 * RANGE


@pytest.mark.parametrize(
    "options",
    [
        {"num_slots": 1},
        {"num_draft_tokens": 2},
        {"prompt_cache_bytes": 0},
        {"num_slots": 100, "context_length": 1024},  # ranges would be too short to be of use
    ],
)
def test_else_there_is_a_pool(options: dict[str, Any]) -> None:
    engine = opened(**options)
    assert not has_ranges(engine)
    run_one(engine, [40, 41], 3)
    engine.close()


def test_a_context_that_fits_into_a_range_never_needs_a_pool() -> None:
    engine = opened(context_length=300, num_slots=4)
    assert engine._memory.longest == 512
    texts = run(engine, [sequence([40 + i] * 20, 1000) for i in range(4)])
    assert [len(text.ids) for text in texts] == [280] * 4
    assert has_ranges(engine)
    engine.close()


@pytest.mark.parametrize("num_prompt", [300, 250])
def test_a_long_sequence_makes_a_pool_of_them(
    engine: LlamaCppEngine, alone: LlamaCppEngine, num_prompt: int
) -> None:
    """At its start, or when what it generates no longer fits."""
    prompt = long_prompt(engine, num_prompt)
    text = run_one(engine, prompt, 60)
    assert not has_ranges(engine)
    assert text.ids == run_one(alone, prompt, 60).ids
    assert text.prefills[-1].num_cached == 0


def test_those_that_run_go_on_where_they_were(
    engine: LlamaCppEngine, alone: LlamaCppEngine, rows: list[int]
) -> None:
    prompts = prompts_of(engine, 3, 80)
    expected = [run_one(alone, prompt, 100).ids for prompt in prompts]
    rows.clear()
    ones = [sequence(prompt, 100) for prompt in prompts]
    long = sequence(long_prompt(engine, 700), 4)
    events: list[StepEvent] = []
    for one in ones:
        engine.submit(one)
    for _ in range(30):
        events += engine.step()
    assert has_ranges(engine)
    engine.submit(long)
    events += drain(engine)
    assert not has_ranges(engine)
    assert [ids_of(events, one.sequence_id) for one in ones] == expected
    assert ids_of(events, long.sequence_id) == run_one(alone, long.prompt, 4).ids
    # Each prompt was read once: what came after it took a row per token and sequence, or four.
    assert sum(count for count in rows if count > 8) <= 3 * 80 + 700 + 700


def test_one_that_is_moved_while_it_is_read_has_nothing_from_the_cache(
    engine: LlamaCppEngine,
) -> None:
    short, long = sequence(long_prompt(engine, 200)[1:], 3), sequence(long_prompt(engine, 700), 3)
    engine._decoder.was_stopped = True  # the next call reads one budget, not four
    events: list[StepEvent] = []
    engine.submit(short)
    events += engine.step()
    engine.submit(long)
    events += drain(engine)
    progress = [e for e in events if isinstance(e, Prefill) and e.sequence_id == short.sequence_id]
    assert progress[0].num_done < progress[-1].num_done == 199
    assert {e.num_cached for e in progress} == {0}


def test_it_goes_back_when_the_pool_has_cost_enough(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 0.5)
    run_one(engine, long_prompt(engine, 300), 2)
    assert not has_ranges(engine)
    run_one(engine, [40] * 30, 150)
    assert not has_ranges(engine), "a lone sequence passes over nobody's cells"
    prompts = prompts_of(engine, 3)
    texts = run(engine, [sequence(prompt, 120) for prompt in prompts])
    assert has_ranges(engine)
    assert [text.ids for text in texts] == [run_one(alone, prompt, 120).ids for prompt in prompts]


def start(engine: LlamaCppEngine, prompts: list[list[int]], max_tokens: int) -> list[Sequence]:
    """The first one is read before the others come."""
    ones = [sequence(prompt, max_tokens) for prompt in prompts]
    engine.submit(ones[0])
    step_until(engine, ones[0].sequence_id, 1)
    for one in ones[1:]:
        engine.submit(one)
    return ones


def test_a_long_common_beginning_makes_a_pool_of_them(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 4)
    text = long_prompt(engine, 150)
    ones = start(engine, [[*text, 40 + number] for number in range(4)], 60)
    assert has_ranges(engine)
    events = engine.step()
    assert not has_ranges(engine)
    assert engine._memory.num_cells - engine._memory.num_free < 2 * 151, "it is there once"
    events += drain(engine)
    for one in ones[1:]:
        assert ids_of(events, one.sequence_id) == run_one(alone, one.prompt, 60).ids
    assert not has_ranges(engine), "sharing costs less than passing over what is not shared"


def test_prompts_that_begin_alike_and_come_together_get_a_pool(engine: LlamaCppEngine) -> None:
    text = long_prompt(engine, 150)
    for number in range(3):
        engine.submit(sequence([*text, 40 + number], 20))
    engine.step()
    assert not has_ranges(engine)
    drain(engine)


def test_one_that_has_a_state_of_its_own_needs_no_pool(engine: LlamaCppEngine) -> None:
    text = long_prompt(engine, 150)
    prompt = [*text, *range(40, 110)]
    run_one(engine, prompt, 2)
    running = sequence([*text[:140], 45, 46], 60)
    engine._prefixes.evict_all()
    engine.submit(running)
    step_until(engine, running.sequence_id, 2)
    engine.submit(sequence([*prompt, 45], 10))
    drain(engine)
    assert has_ranges(engine)


def test_a_short_common_beginning_does_not(engine: LlamaCppEngine) -> None:
    text = long_prompt(engine, 130)
    start(engine, [[*text[:60], 40 + number, *text[60:]] for number in range(4)], 80)
    drain(engine)
    assert has_ranges(engine)


def test_of_several_that_want_the_same_copy_one_makes_it(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    copy_out = SlotRanges.copy_out

    def counting(self: SlotRanges, seq_id: int) -> Any:
        copies.append(seq_id)
        return copy_out(self, seq_id)

    monkeypatch.setattr(SlotRanges, "copy_out", counting)
    text = long_prompt(engine, 120)
    ones = start(engine, [[*text, 40 + number] for number in range(5)], 30)
    engine.step()
    assert copies == [0]
    events = drain(engine)
    for one in ones[1:]:
        assert ids_of(events, one.sequence_id)[-20:] == run_one(alone, one.prompt, 30).ids[-20:]


def test_it_takes_longer_to_go_back_where_that_did_not_last(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 10)
    num_steps = []
    for _ in range(4):
        run_one(engine, long_prompt(engine, 300), 2)
        assert not has_ranges(engine)
        ones = [sequence(prompt, 180) for prompt in prompts_of(engine, 4)]
        for one in ones:
            engine.submit(one)
        num_steps.append(0)
        while not has_ranges(engine):
            assert engine.has_work
            engine.step()
            num_steps[-1] += 1
        for one in ones:
            engine.abort(one.sequence_id)
    assert num_steps[0] < num_steps[1] < num_steps[2] < num_steps[3]


def test_it_stays_a_pool_while_a_long_one_runs(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 0.01)
    long = sequence(long_prompt(engine, 300), 100)
    engine.submit(long)
    for prompt in prompts_of(engine, 3):
        engine.submit(sequence(prompt, 50))
    step_until(engine, long.sequence_id, 99)
    assert not has_ranges(engine)
    drain(engine)


def test_what_is_kept_survives_both_ways(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of(engine, 4, 150)
    for prompt in prompts:
        run_one(engine, prompt, 4)
    run_one(engine, long_prompt(engine, 300), 2)
    assert not has_ranges(engine)
    assert run_one(engine, [*prompts[0], 41], 2).prefills[-1].num_cached >= 149
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 0.01)
    run(engine, [sequence([44 + i] * 5, 40) for i in range(2)])
    assert has_ranges(engine)
    assert run_one(engine, [*prompts[1], 41], 2).prefills[-1].num_cached >= 149


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_state_on_disk_suits_both(
    tmp_path: Path, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch, order: tuple[bool, bool]
) -> None:
    texts = []
    for may_have_ranges in order:
        with monkeypatch.context() as patch:
            patch.setattr(loaded_model, "_may_have_ranges", lambda *_, may=may_have_ranges: may)
            engine = opened(prompt_cache_dir=tmp_path)
        assert has_ranges(engine) == may_have_ranges
        texts.append(run_one(engine, long_prompt(engine, 200), 20))
        engine.close()
    assert texts[0].ids == texts[1].ids == run_one(alone, long_prompt(alone, 200), 20).ids
    assert texts[1].prefills[-1].num_cached == 199


def test_a_change_that_finds_no_memory_is_tried_again(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = sequence(long_prompt(engine, 300), 4), sequence([40, 41, 42], 10)

    def fails(*_: object, **__: object) -> Pool:
        raise ModelLoadError("no room for a context")

    with monkeypatch.context() as patch:
        patch.setattr(layout, "open_pool", fails)
        engine.submit(short)
        engine.step()
        engine.submit(long)
        with pytest.raises(ModelLoadError, match="no room"):
            engine.step()
        for one in (long, short):
            engine.abort(one.sequence_id)
    assert not engine.has_work
    assert run_one(engine, long.prompt, 4).ids == run_one(alone, long.prompt, 4).ids
    assert not has_ranges(engine)


# Ranges


def test_the_next_turn_goes_on_in_its_own_range(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of(engine, 3, 100)
    first = [run_one(engine, prompt, 4) for prompt in prompts]
    with monkeypatch.context() as patch:
        patch.setattr(SlotRanges, "copy_out", None)  # nothing is copied
        for prompt, turn in zip(prompts, first, strict=True):
            again = run_one(engine, [*prompt, *turn.ids, 41, 42], 4)
            assert again.prefills[-1].num_cached == 103


def test_what_is_kept_leaves_for_who_needs_the_range(
    engine: LlamaCppEngine, alone: LlamaCppEngine
) -> None:
    prompts = prompts_of(engine, 12, 100)
    for prompt in prompts:
        run_one(engine, prompt, 4)
    assert len(engine._prefixes) == 8
    again = run_one(engine, [*prompts[0], 41], 10)
    assert again.prefills[-1].num_cached == 100
    assert again.ids == run_one(alone, [*prompts[0], 41], 10).ids


def test_a_restore_that_fails_after_it_made_room_costs_nobody(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = long_prompt(engine, 150)
    run_one(engine, text, 2)
    engine._prefixes.evict_all()
    for prompt in ([*text[:60], 41, 42], *prompts_of(engine, 7, 40)):
        run_one(engine, prompt, 2)
    in_the_way = engine._memory.in_the_way  # type: ignore[attr-defined]
    assert in_the_way is not None, "the first of these, which has 60 tokens of the text"
    monkeypatch.setattr(engine._shelf, "restore", lambda _: None)
    prompt = [*text, 43]
    assert run_one(engine, prompt, 10).ids == run_one(alone, prompt, 10).ids


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


def all_started(
    engine: LlamaCppEngine, prompts: list[list[int]], max_tokens: int
) -> tuple[list[Sequence], list[StepEvent]]:
    """Sequences that all decode, and what was said of them."""
    ones = [sequence(prompt, max_tokens) for prompt in prompts]
    events: list[StepEvent] = []
    for one in ones:
        engine.submit(one)
    while len(ids_of(events, ones[-1].sequence_id)) < 4:
        events += engine.step()
    return ones, events


def test_those_left_over_move_together(engine: LlamaCppEngine, alone: LlamaCppEngine) -> None:
    prompts = prompts_of(engine, 8)
    expected = {i: run_one(alone, prompts[i], 80).ids for i in (0, 7)}
    ones, events = all_started(engine, prompts, 80)
    for one in ones[1:7]:
        engine.abort(one.sequence_id)
    for _ in range(20):
        events += engine.step()
    places = sorted(run.seq_id for run in engine._scheduler.running)
    assert len(places) == 2
    assert places[1] - places[0] < 4
    events += drain(engine)
    for i, ids in expected.items():
        assert ids_of(events, ones[i].sequence_id) == ids


def test_a_gap_is_decoded_along(engine: LlamaCppEngine, alone: LlamaCppEngine) -> None:
    """Rows of no use stand in ranges that are free, that keep something, that are being read."""
    prompts = prompts_of(engine, 4, 100)
    expected = [run_one(alone, prompt, 60).ids for prompt in prompts]
    ones, events = all_started(engine, prompts, 60)
    engine.abort(ones[1].sequence_id)
    again = sequence([*prompts[1], 41], 10)
    events += drain(engine)
    for i in (0, 2, 3):
        assert ids_of(events, ones[i].sequence_id) == expected[i]
    engine.submit(again)
    text = ids_of(drain(engine), again.sequence_id)
    assert text == run_one(alone, again.prompt, 10).ids


# All at once


def test_random_company_changes_no_text(
    engine: LlamaCppEngine, alone: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences of all lengths come and leave while the layout changes again and again."""
    monkeypatch.setattr(layout, "_PASSES_PER_CELL", 0.2)
    draw = random.Random(3)
    text = long_prompt(engine, 400)
    waiting: list[Sequence] = []
    for number in range(60):
        length = 350 if number % 12 == 5 else draw.randrange(2, 180)
        waiting.append(sequence([40 + number % 50, *text[: length - 1]], draw.randrange(5, 60)))
    ones = {one.sequence_id: one for one in waiting}
    transcripts = {sequence_id: Transcript() for sequence_id in ones}
    aborted: set[int] = set()
    layouts = []
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
        layouts.append(has_ranges(engine))
    num_changes = sum(one != other for one, other in itertools.pairwise(layouts))
    assert num_changes >= 6
    assert len(aborted) >= 3
    for sequence_id, one in ones.items():
        got = transcripts[sequence_id].ids
        expected = run_one(alone, one.prompt, one.max_tokens).ids
        assert got == expected[: len(got)]
        assert len(got) == len(expected) or sequence_id in aborted


# Tiles


@pytest.mark.parametrize("may_have_ranges", [True, False])
def test_a_short_piece_is_read_as_a_tile(
    alone: LlamaCppEngine,
    rows: list[int],
    monkeypatch: pytest.MonkeyPatch,
    may_have_ranges: bool,
) -> None:
    monkeypatch.setattr(loaded_model, "_may_have_ranges", lambda *_: may_have_ranges)
    engine = opened()
    history = long_prompt(engine, 700)
    question = [*history, *long_prompt(engine, 60)[:50]]
    monkeypatch.setattr(Tiles, "num_missing", lambda *_: 0)
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
