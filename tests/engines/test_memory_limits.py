"""A worker's share of the memory: the engine stays under it, or says what it lacks."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from jobs.contract.errors import ContextLengthExceededError, InsufficientMemoryError
from tests.engines.conftest import MODELS
from tests.engines.driving import SEEDED, Transcript, ids_of, long_prompt, run_one, sequence
from workers.engines.base import (
    Engine,
    EngineOptions,
    Prefill,
    SequenceFailure,
    StepEvent,
    Token,
)
from workers.engines.factory import open_engine

MIB = 1 << 20
CONTEXT = 768

OpenShared = Callable[..., Engine]


@pytest.fixture(params=["llama-cpp", "mlx"])
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"llama-cpp": "llama_cpp", "mlx": "mlx"}[request.param])
    return str(request.param)


@pytest.fixture
def open_shared(backend: str) -> Iterator[OpenShared]:
    """Opens the demo model with a share of so many MiB."""
    opened: list[Engine] = []

    def open_one(share: float | None, **options: Any) -> Engine:
        path = MODELS / ("demo" if backend == "mlx" else "demo.gguf")
        gc.collect()  # what earlier engines held is not a part of this one's share
        memory_bytes = None if share is None else int(share * MIB)
        given = EngineOptions(memory_bytes=memory_bytes, **options)
        opened.append(open_engine(backend, path, given, lambda done: None))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


class Meter:
    """What an engine holds, by its library's own figures."""

    def __init__(self, engine: Any, share: float) -> None:
        self._engine = engine
        self._share = int(share * MIB)
        self._before = 0
        self.most = 0
        if engine.info.backend == "mlx":
            self._before = engine._memory.limit_bytes + engine_host_bytes(engine) - self._share

    def check(self) -> None:
        held = self._mlx() if self._engine.info.backend == "mlx" else self._llama()
        self.most = max(self.most, held)
        assert held <= self._share

    def _mlx(self) -> int:
        import mlx.core as mx

        peak, now = mx.get_peak_memory(), mx.get_active_memory() + mx.get_cache_memory()
        mx.reset_peak_memory()
        return max(peak, now) - self._before

    def _llama(self) -> int:
        from workers.engines.llama_cpp.binding import lib

        loaded = self._engine._loaded
        kept = 0 if loaded.host_cache is None else loaded.host_cache.num_bytes
        weights = lib.llama_model_size(loaded.model)
        return int(weights + loaded.num_context_bytes + loaded.embedder.num_bytes + kept)


def engine_host_bytes(engine: Any) -> int:
    return int(engine._memory.aside_bytes)


def drive(engine: Engine, meter: Meter, prompts: list[list[int]], num: int) -> list[Transcript]:
    """Run all together, with the meter read after each step."""
    ones = [sequence(prompt, num) for prompt in prompts]
    for one in ones:
        engine.submit(one)
    found = {one.sequence_id: Transcript() for one in ones}
    while engine.has_work:
        for event in engine.step():
            assert not isinstance(event, SequenceFailure), event
            if isinstance(event, Token):
                found[event.sequence_id].tokens.append(event)
            elif isinstance(event, Prefill):
                found[event.sequence_id].prefills.append(event)
        meter.check()
    return list(found.values())


@pytest.mark.parametrize("share", [14, 40])
def test_long_prompts_joins_kept_chats_and_vectors_stay_under_a_share(
    open_shared: OpenShared, share: int
) -> None:
    engine = open_shared(share, context_length=CONTEXT)
    meter = Meter(engine, share)
    lengths = [CONTEXT - 20, 5, 300, CONTEXT - 40, 60, 9]
    prompts = [[40 + i, *long_prompt(engine, length)] for i, length in enumerate(lengths)]
    first = drive(engine, meter, prompts, 12)
    assert [len(one.ids) for one in first] == [12] * len(prompts)
    chat = [*prompts[2], *first[2].ids, 50, 51, 52]
    once = drive(engine, meter, [chat], 4)
    again = drive(engine, meter, [[*chat, *once[0].ids, 60, 61]], 4)
    assert again[0].prefills[0].num_cached >= len(chat)
    if engine.info.backend == "llama-cpp" and share < 20:  # whose memory is all in cells
        with pytest.raises(InsufficientMemoryError, match="no memory to embed"):
            engine.embed([prompts[2]], None)
    else:
        engine.embed([prompts[2], prompts[1]], None, meter.check)
    meter.check()
    assert meter.most > 0.4 * share * MIB


def test_sequences_that_grow_too_long_together_take_turns_and_say_the_same(
    open_shared: OpenShared, backend: str
) -> None:
    if backend == "llama-cpp":
        pytest.skip("in test_llama_cpp_scheduling.py")
    share, num = 15, 100
    engine: Any = open_shared(share, context_length=512, num_slots=3)
    texts = [[40 + i, 50, 60] for i in range(3)]
    seeded = [msgspec.structs.replace(SEEDED, mirostat_mode=2), SEEDED, SEEDED]
    ones = [sequence(text, num, how) for text, how in zip(texts, seeded, strict=True)]
    expected = [
        run_one(engine, text, num, how).ids for text, how in zip(texts, seeded, strict=True)
    ]
    meter, num_preempted = Meter(engine, share), 0
    for one in ones:
        engine.submit(one)
    events: list[StepEvent] = []
    while engine.has_work:
        events += engine.step()
        meter.check()
        num_preempted = max(num_preempted, len(engine._preempted))
    assert num_preempted > 0
    for one, tokens in zip(ones, expected, strict=True):
        assert ids_of(events, one.sequence_id) == tokens
        own = [e for e in events if isinstance(e, Prefill) and e.sequence_id == one.sequence_id]
        assert [e.num_done for e in own] == [len(one.prompt)]


def test_weights_larger_than_the_share_are_refused_by_name(open_shared: OpenShared) -> None:
    with pytest.raises(InsufficientMemoryError, match=r"its weights take .* are there"):
        open_shared(3)


def test_a_context_that_does_not_fit_is_refused_and_one_that_was_not_asked_for_is_shortened(
    open_shared: OpenShared, backend: str
) -> None:
    share = {"llama-cpp": 10.0, "mlx": 11.5}[backend]
    with pytest.raises(InsufficientMemoryError, match="no memory for a context of 2048 tokens"):
        open_shared(share, context_length=2048)
    engine = open_shared(share)
    context_length = engine.info.context_length
    assert 256 <= context_length < 2048
    with pytest.raises(ContextLengthExceededError):
        engine.submit(sequence([40] * context_length, 1))
    assert len(run_one(engine, [40] * (context_length - 2), 2).ids) == 2


def test_a_share_with_room_changes_no_token(open_shared: OpenShared) -> None:
    prompts = [[40, 41, 42], [50] * 200]
    shared, free = open_shared(300), open_shared(None)
    assert [run_one(shared, p).ids for p in prompts] == [run_one(free, p).ids for p in prompts]


def test_a_long_text_is_embedded_in_pieces_as_it_is_whole(open_shared: OpenShared) -> None:
    engine: Any = open_shared(None)
    embedder = engine._embedder if engine.info.backend == "mlx" else engine._loaded.embedder
    text, num_pieces = long_prompt(engine, 400), itertools.count()
    embedder._budget._num_tokens = 100
    embedder._budget._target_s = 1e9  # no piece is too slow: the next is larger, as said below
    pieces = engine.embed([text], None, lambda: next(num_pieces) and None)
    assert next(num_pieces) > 1
    embedder._budget._num_tokens = 512
    whole = engine.embed([text], None)
    assert np.abs(np.array(pieces) - np.array(whole)).max() < 2e-3
