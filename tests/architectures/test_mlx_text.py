"""Whatever caches an MLX model has, company, caches and aborts change no token of its text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from scripts.modelfiles.mlx_architectures import architectures
from scripts.modelfiles.mlx_special import METAL_ONLY, UNUSABLE, WRONG_ALONE
from tests.architectures.chosen import MLX, chosen
from tests.architectures.mlx_reference import Reference, opened, prompt_of, texts
from tests.architectures.mlx_table import DOCUMENT, row_of
from tests.engines.driving import drain, ids_of, sequence
from workers.engines.mlx.engine import MlxEngine

pytestmark = pytest.mark.real_engine

COMMON = prompt_of(1, 30)  # longer than the sliding windows


NAMES = chosen([name for name in architectures() if name not in (*METAL_ONLY, *WRONG_ALONE)], MLX)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def reference(name: str) -> Reference:
    return Reference(name)


@pytest.fixture(scope="module")
def engine(name: str) -> Iterator[MlxEngine]:
    made = opened(name)
    yield made
    made.close()


def test_alone_it_says_what_mlx_lm_says(engine: MlxEngine, reference: Reference) -> None:
    short, long = prompt_of(2, 5), prompt_of(3, 45)
    assert texts(engine, [short], 5) == [reference.text(short, 5)]
    assert reference.differs(long, texts(engine, [long], 8)[0]) is None


def test_together_some_leave_and_some_come(engine: MlxEngine, reference: Reference) -> None:
    """They begin alike but one of two tokens, one that ends early and one that is aborted."""
    prompts = [prompt_of(10 + n, 36 + 7 * n, COMMON) for n in range(4)] + [prompt_of(20, 2)]
    lengths = [10, 3, 10, 8, 6]
    sequences = [sequence(*given) for given in zip(prompts, lengths, strict=True)]
    events = []
    for one in sequences:
        engine.submit(one)
        events += [event for _ in range(2) for event in engine.step()]
    engine.abort(sequences[2].sequence_id)
    events += drain(engine)
    for one in (one for one in sequences if one is not sequences[2]):
        said = ids_of(events, one.sequence_id)
        assert len(said) == one.max_tokens
        assert reference.differs(one.prompt, said) is None


def test_the_same_prompt_the_next_turn_and_a_branch(
    engine: MlxEngine, reference: Reference
) -> None:
    first = prompt_of(40, 40)
    (said,) = texts(engine, [first], 5)
    turns = [
        first,
        [*first, *said, *prompt_of(41, 12)],
        prompt_of(42, 44, first[:30]),
        [*first, *said[:2], *prompt_of(43, 12)],
    ]
    alone = [texts(engine, [turn], 4)[0] for turn in turns]
    together = texts(engine, turns, 4)
    for turn, *answers in zip(turns, alone, together, strict=True):
        assert [reference.differs(turn, answer) for answer in answers] == [None, None]


def test_the_document_says_what_it_can_do(name: str, engine: MlxEngine) -> None:
    assert row_of(name, engine) in DOCUMENT.read_text().splitlines()


def test_the_document_names_what_is_not_compared() -> None:
    section = DOCUMENT.read_text().partition("| not compared |")[2]
    rows = "".join(line for line in section.splitlines() if line.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted({*METAL_ONLY, *UNUSABLE, *WRONG_ALONE})


@pytest.mark.parametrize("name", chosen(WRONG_ALONE, ()))
def test_what_mlx_lm_computes_wrongly_is_generated_all_the_same(name: str) -> None:
    assert Reference(name).contradicts_itself(prompt_of(50, 40))
    engine = opened(name)
    assert row_of(name, engine) in DOCUMENT.read_text().splitlines()
    assert len(texts(engine, [prompt_of(51, 40)], 3)[0]) == 3
    engine.close()
