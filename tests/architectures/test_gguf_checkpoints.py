"""GGUF models whose memory cannot be cut: states are copied where another prompt needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.architectures.chosen import GGUF, chosen
from tests.architectures.gguf_reference import Reference, answers, opened, prompt_of
from tests.engines.driving import run, sequence
from workers.engines.llama_cpp.engine import LlamaCppEngine

pytestmark = pytest.mark.real_engine

NAMES = chosen(["mamba", "rwkv7", "lfm2", "qwen35"], GGUF)
LONG = 1500
STATES = 8  # of other prompts, more than there is room for


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def engine(name: str) -> Iterator[LlamaCppEngine]:
    made = opened(name, num_slots=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    made = Reference(name)
    yield made
    made.close()


def num_cached(engine: LlamaCppEngine, reference: Reference, prompt: list[int]) -> int:
    (answer,) = answers(engine, [prompt], 6)
    assert reference.differs(prompt, answer.ids) is None
    return answer.prefills[-1].num_cached


def test_of_the_same_prompt_only_the_end_is_read_again(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    prompt = prompt_of(1, LONG)
    assert num_cached(engine, reference, prompt) == 0
    assert LONG - 16 < num_cached(engine, reference, prompt) < LONG


def test_the_next_turn_goes_on_from_the_answer(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    first = prompt_of(2, LONG)
    (said,) = answers(engine, [first], 20)
    turn = [*first, *said.ids, *prompt_of(3, 30)]
    assert num_cached(engine, reference, turn) == len(first) + len(said.ids) - 1


def test_a_next_turn_that_leaves_out_the_thoughts_goes_on_from_the_prompt(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    first = prompt_of(4, LONG)
    (said,) = answers(engine, [first], 20)
    turn = [*first[:-4], *said.ids[12:], *prompt_of(5, 30)]
    assert LONG - 16 < num_cached(engine, reference, turn) < LONG


def test_a_counted_opening_is_all_that_is_read_again(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    first = prompt_of(15, LONG)
    run(engine, [replace(sequence(first, 6), num_opening=3)])
    for turn in (first, [*first[:-3], *prompt_of(16, 30)]):
        assert num_cached(engine, reference, turn) == LONG - 3


def test_the_third_chat_with_the_same_system_prompt_does_not_read_it(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    system = prompt_of(6, 400)
    chats = [prompt_of(7 + n, 500, system) for n in range(3)]
    cached = [num_cached(engine, reference, chat) for chat in chats]
    assert cached[:2] == [0, 0]  # nobody knows yet where they part
    assert cached[2] >= 400


def test_without_a_prompt_cache_nothing_pauses(name: str, reference: Reference) -> None:
    engine = opened(name, prompt_cache_bytes=0)
    prompt = prompt_of(11, 200)
    for _ in range(2):
        (answer,) = answers(engine, [prompt], 6)
        assert 191 not in [event.num_done for event in answer.prefills]
        assert answer.prefills[-1].num_cached == 0
    engine.close()


def test_states_stay_within_their_bytes(name: str, reference: Reference) -> None:
    probe = opened(name)
    answers(probe, [prompt_of(12, 300)], 4)
    room = probe._host_cache.num_bytes * 2
    probe.close()
    engine = opened(name, prompt_cache_bytes=room)
    for seed in range(20, 20 + STATES):
        assert num_cached(engine, reference, prompt_of(seed, 300)) == 0
        assert 0 < engine._host_cache.num_bytes <= room
    engine.close()


def test_states_on_disk_outlive_the_engine(name: str, reference: Reference, tmp_path: Path) -> None:
    prompt = prompt_of(13, 300)
    for least in (0, 280):
        engine = opened(name, prompt_cache_dir=tmp_path)
        assert num_cached(engine, reference, prompt) >= least
        engine.close()


def test_with_cells_per_slot_too(name: str, reference: Reference) -> None:
    engine = opened(name, num_slots=2, kv_layout="per_slot")
    prompt = prompt_of(14, 300)
    assert num_cached(engine, reference, prompt) == 0
    assert num_cached(engine, reference, prompt) > 280
    engine.close()
