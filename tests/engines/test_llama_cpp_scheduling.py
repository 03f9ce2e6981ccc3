"""Who runs when the KV pool is short, and how prompts share a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.memory import load_defaults
from tests.engines.driving import (
    drain,
    ids_of,
    long_prompt,
    pieces_between,
    run_one,
    sequence,
    step_until,
)
from workers.engines.base import EngineOptions, Prefill, StepEvent, Token
from workers.engines.llama_cpp.cache.kv_cells import KvCells
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


def opened(options: EngineOptions | None = None) -> LlamaCppEngine:
    return open_llama_cpp(DEMO, options or EngineOptions(), lambda fraction: None)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaCppEngine]:
    """Eight slots of 512 tokens over a pool of 1,024 cells."""
    monkeypatch.setattr(load_defaults, "SHARED_CELLS", 1024)
    engine = opened(EngineOptions(context_length=512))
    yield engine
    engine.close()


# The pool


def test_more_text_than_the_pool_holds_comes_to_its_end(cramped: LlamaCppEngine) -> None:
    """Eight times 400 tokens over 1,024 cells: preempted ones go on where they were."""
    prompts = [[40 + number, 50, 60, 70] for number in range(8)]
    expected = [run_one(cramped, prompt, 400).ids for prompt in prompts]
    ones = [sequence(prompt, 400) for prompt in prompts]
    for one in ones:
        cramped.submit(one)
    events = drain(cramped)
    for one, text in zip(ones, expected, strict=True):
        got = ids_of(events, one.sequence_id)
        assert len(got) == 400
        # Noise: a near-tie may fall the other way after a text was read again.
        same = next((i for i in range(400) if got[i] != text[i]), 400)
        assert same >= 20
        prefills = [
            e for e in events if isinstance(e, Prefill) and e.sequence_id == one.sequence_id
        ]
        assert [e.num_done for e in prefills] == [4]


def test_all_start_at_once_when_their_prompts_fit(cramped: LlamaCppEngine) -> None:
    ones = [sequence([40 + number, 50], 500) for number in range(8)]
    for one in ones:
        cramped.submit(one)
    started = {e.sequence_id for e in cramped.step() if isinstance(e, Token)}
    assert started == {one.sequence_id for one in ones}
    for one in ones:
        cramped.abort(one.sequence_id)


def test_the_oldest_is_never_preempted(cramped: LlamaCppEngine) -> None:
    oldest = sequence([40, 41], 500)
    cramped.submit(oldest)
    for number in range(7):
        cramped.submit(sequence([50 + number, 41], 500))
    while cramped.has_work:
        events = cramped.step()
        ids = [e.sequence_id for e in events if isinstance(e, Token)]
        assert oldest.sequence_id in ids
        if any(
            isinstance(e, Token) and e.finish and e.sequence_id == oldest.sequence_id
            for e in events
        ):
            break
    for run in cramped._scheduler.running:
        cramped.abort(run.sequence.sequence_id)


def test_kept_prefixes_leave_before_anybody_waits(cramped: LlamaCppEngine) -> None:
    for number in range(6):
        run_one(cramped, long_prompt(cramped, 200)[number:], 2)
        run_one(cramped, [60 + number] * 150, 2)
    ones = [sequence([40 + number] * 100, 3) for number in range(8)]
    for one in ones:
        cramped.submit(one)
    cramped.step()
    assert len(cramped._scheduler.running) == 8
    drain(cramped)


def test_after_all_has_ended_only_kept_cells_are_taken(cramped: LlamaCppEngine) -> None:
    for number in range(20):
        cramped.submit(sequence([40 + number, 50, 60], 100))
    drain(cramped)
    memory, prefixes = cramped._memory, cramped._scheduler._prefixes
    assert memory.num_cells - memory.num_free == prefixes.num_cells
    while prefixes.evict():
        pass
    assert (memory.num_free, prefixes.num_cells) == (memory.num_cells, 0)


def test_shared_cells_are_counted_once() -> None:
    cells = KvCells(10)
    cells.extend(0, 4)
    cells.share(0, 1, 3)
    cells.extend(1, 2)
    assert (cells.num_free, cells.length(0), cells.length(1)) == (4, 4, 5)
    cells.truncate(0, 0)
    assert cells.num_free == 5
    cells.truncate(1, 2)
    assert cells.num_free == 8
    cells.truncate(1, 0)
    assert cells.num_free == 10


# A step's budget


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    engine = opened()
    long, short = sequence(long_prompt(engine, 1900), 2), sequence([45, 46, 47], 2)
    engine.submit(long)
    engine.step()
    engine.submit(short)
    events = engine.step()
    assert short.sequence_id in {e.sequence_id for e in events if isinstance(e, Token)}
    assert long.sequence_id in {e.sequence_id for e in events if isinstance(e, Prefill)}
    engine.abort(long.sequence_id)
    drain(engine)
    engine.close()


def test_running_streams_go_on_while_a_long_prompt_is_read() -> None:
    engine = opened()
    stream, long = sequence([45, 46], 200), sequence(long_prompt(engine, 1900), 2)
    engine.submit(stream)
    step_until(engine, stream.sequence_id, 2)
    engine.submit(long)
    steps: list[list[StepEvent]] = []
    while not steps or not ids_of(steps[-1], long.sequence_id):
        steps.append(engine.step())
    pieces = pieces_between(steps, [long.sequence_id], stream.sequence_id)
    assert sum(pieces) > 4
    assert max(pieces) == 1
    engine.abort(stream.sequence_id)
    drain(engine)
    engine.close()


def test_of_prompts_that_come_together_the_first_is_read_first() -> None:
    engine = opened(EngineOptions(prompt_cache_bytes=0))
    ones = [sequence([45 + number] * length, 2) for number, length in enumerate((150, 140, 130))]
    for one in ones:
        engine.submit(one)
    events = engine.step()  # 256 tokens: neither half of them for each, nor the shortest before
    progress = {e.sequence_id: e.num_done for e in events if isinstance(e, Prefill)}
    assert progress == {ones[0].sequence_id: 150, ones[2].sequence_id: 106}
    drain(engine)
    engine.close()


def test_a_first_token_does_not_wait_for_those_that_run() -> None:
    engine = opened()
    stream, late = sequence([45, 46], 200), sequence([47] * 40, 8)
    engine.submit(stream)
    step_until(engine, stream.sequence_id, 2)
    engine.submit(late)
    events = engine.step()
    assert len(ids_of(events, late.sequence_id)) == 1
    assert ids_of(events, stream.sequence_id) == []
    both = engine.step()
    assert len(ids_of(both, late.sequence_id)) == len(ids_of(both, stream.sequence_id)) == 1
    engine.abort(stream.sequence_id)
    drain(engine)
    engine.close()


def test_running_streams_go_on_while_many_prompts_are_read() -> None:
    engine = opened()
    stream = sequence([45, 46], 400)
    burst = [sequence(long_prompt(engine, 1000 + number), 2) for number in range(3)]
    engine.submit(stream)
    step_until(engine, stream.sequence_id, 2)
    for one in burst:
        engine.submit(one)
    steps: list[list[StepEvent]] = []
    while not all(any(ids_of(events, one.sequence_id) for events in steps) for one in burst):
        steps.append(engine.step())
    pieces = pieces_between(steps, [one.sequence_id for one in burst], stream.sequence_id)
    assert len(pieces) > 3
    assert max(pieces) == 2
    engine.abort(stream.sequence_id)
    drain(engine)
    engine.close()
