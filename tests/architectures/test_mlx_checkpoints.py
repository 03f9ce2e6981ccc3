"""MLX models whose caches cannot be cut: prompts keep a state where the next turn goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.architectures.chosen import MLX, chosen
from tests.architectures.mlx_reference import Reference, opened, prompt_of
from tests.engines.driving import Transcript, drain, run, sequence
from workers.engines.base import Prefill
from workers.engines.mlx.engine import MlxEngine

pytestmark = pytest.mark.real_engine

# Hybrid, recurrent, and a sliding window that is shorter than the prompts.
NAMES = chosen(["lfm2", "qwen3_next", "mamba2", "gemma3_text"], MLX)
LENGTH = 200


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def engine(name: str) -> Iterator[MlxEngine]:
    made = opened(name)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(name: str) -> Reference:
    return Reference(name)


def answer(engine: MlxEngine, prompt: list[int], num_opening: int | None = None) -> Transcript:
    (found,) = run(engine, [replace(sequence(prompt, 20), num_opening=num_opening)])
    return found


def num_cached(
    engine: MlxEngine, reference: Reference, prompt: list[int], num_opening: int | None = None
) -> int:
    found = answer(engine, prompt, num_opening)
    assert reference.differs(prompt, found.ids) is None
    return found.prefills[-1].num_cached


def test_a_next_turn_that_leaves_out_the_thoughts_goes_on_from_the_prompt(
    engine: MlxEngine, reference: Reference
) -> None:
    first = prompt_of(1, LENGTH)
    said = answer(engine, first).ids
    turn = [*first[:-4], *said[12:], *prompt_of(2, 30)]
    assert LENGTH - 16 < num_cached(engine, reference, turn) <= LENGTH - 4


def test_a_counted_opening_is_all_that_is_read_again(
    engine: MlxEngine, reference: Reference
) -> None:
    first = prompt_of(3, LENGTH)
    said = answer(engine, first, num_opening=5).ids
    for turn in (first, [*first[:-5], *prompt_of(4, 30)]):
        assert num_cached(engine, reference, turn) == LENGTH - 5
    turn = [*first, *said, *prompt_of(5, 30)]
    assert num_cached(engine, reference, turn) == LENGTH + len(said) - 1


def test_the_third_chat_with_the_same_system_prompt_does_not_read_it(
    engine: MlxEngine, reference: Reference
) -> None:
    system = prompt_of(8, 100)
    chats = [prompt_of(9 + n, LENGTH, system) for n in range(3)]
    cached = [num_cached(engine, reference, chat) for chat in chats]
    assert cached[:2] == [0, 0]  # nobody knows yet where they part
    assert cached[2] >= 100


def test_an_opening_longer_than_the_prompt_is_no_place_to_stop(
    engine: MlxEngine, reference: Reference
) -> None:
    prompt = prompt_of(6, LENGTH)
    assert num_cached(engine, reference, prompt, num_opening=LENGTH + 5) == 0
    assert num_cached(engine, reference, prompt) == LENGTH - 1


def test_without_a_prompt_cache_nothing_stops(name: str) -> None:
    engine = opened(name, prompt_cache_bytes=0)
    engine.submit(sequence(prompt_of(7, LENGTH)))
    done = [event.num_done for event in drain(engine) if isinstance(event, Prefill)]
    assert done[-1] == LENGTH
    assert LENGTH - 9 not in done
    engine.close()
