"""A call that reads a prompt is broken off for who leaves, and nobody else loses a token by it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.driving import drain, ids_of, long_prompt, run_one, sequence, step_until
from workers.engines.base import EngineOptions, Prefill, Sequence
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


@pytest.fixture
def engine() -> Iterator[LlamaCppEngine]:
    # Nothing is kept: a prompt is read as a whole each time.
    opened = open_llama_cpp(DEMO, EngineOptions(prompt_cache_bytes=0), lambda fraction: None)
    yield opened
    opened.close()


@contextlib.contextmanager
def interrupting(engine: LlamaCppEngine, one: Sequence) -> Iterator[None]:
    """Another thread that interrupts the sequence again and again."""
    is_over = threading.Event()

    def interrupt() -> None:
        while not is_over.is_set():
            engine.interrupt(one.sequence_id)
            time.sleep(1e-4)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def num_read(engine: LlamaCppEngine, one: Sequence) -> int:
    run = engine._scheduler.find(one.sequence_id)
    return 0 if run is None else run.num_in_cache


def test_a_call_that_is_broken_off_has_read_nothing(engine: LlamaCppEngine) -> None:
    one = sequence(long_prompt(engine, 1900), 5)
    engine.submit(one)
    with interrupting(engine, one):
        assert engine.step() == []
    assert (num_read(engine, one), engine._memory.cells.length(0)) == (0, 0)
    engine.abort(one.sequence_id)
    assert not engine.has_work
    assert engine._memory.num_free == engine._memory.num_cells


def test_what_was_broken_off_is_read_again(engine: LlamaCppEngine) -> None:
    one = sequence(long_prompt(engine, 1900), 20)
    engine.submit(one)
    engine.step()
    before = num_read(engine, one)
    with interrupting(engine, one):
        assert engine.step() == []
        assert num_read(engine, one) == before
        engine.step()
    # Were it broken off each time, a stranger who comes and leaves could keep it from being read.
    assert num_read(engine, one) > before
    ids = ids_of(drain(engine), one.sequence_id)
    assert ids == run_one(engine, one.prompt, 20).ids


def test_who_was_read_in_the_same_call_loses_nothing(engine: LlamaCppEngine) -> None:
    gone, kept = sequence([45] * 900, 20), sequence(long_prompt(engine, 700)[3:], 20)
    engine.submit(gone)
    engine.submit(kept)
    with interrupting(engine, gone):
        assert engine.step() == []
    engine.abort(gone.sequence_id)
    ids = ids_of(drain(engine), kept.sequence_id)
    assert ids == run_one(engine, kept.prompt, 20).ids


def test_a_step_that_decodes_is_never_broken_off(engine: LlamaCppEngine) -> None:
    stream = sequence([45, 46, 47], 60)
    expected = run_one(engine, stream.prompt, 60).ids
    engine.submit(stream)
    with interrupting(engine, stream):
        step_until(engine, stream.sequence_id, 1)
        later = [engine.step() for _ in range(20)]
    assert all(ids_of(events, stream.sequence_id) for events in later)
    events = [event for step in later for event in step] + drain(engine)
    assert ids_of(events, stream.sequence_id) == expected[1:]


def test_only_what_is_being_read_can_be_interrupted(engine: LlamaCppEngine) -> None:
    waiting, one = sequence([45], 2), sequence(long_prompt(engine, 1900), 2)
    engine.submit(one)
    with interrupting(engine, waiting):
        progress = [event for event in engine.step() if isinstance(event, Prefill)]
    assert progress[-1].num_done > 0
    assert len(ids_of(drain(engine), one.sequence_id)) == 2


def test_a_lone_prompt_is_read_in_long_pieces_that_can_be_broken_off(
    engine: LlamaCppEngine,
) -> None:
    one = sequence(long_prompt(engine, 1900), 2)
    engine.submit(one)
    budget = engine._budget.num_tokens
    engine.step()
    assert num_read(engine, one) == 4 * budget
    with interrupting(engine, one):
        assert engine.step() == []
    before, budget = num_read(engine, one), engine._budget.num_tokens
    engine.step()
    assert num_read(engine, one) - before == budget
    drain(engine)
