"""Whatever memory a GGUF model has, company, caches and aborts change no token of its text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from tests.architectures.chosen import GGUF, chosen
from tests.architectures.gguf_reference import Reference, answers, file_of, opened, prompt_of
from tests.engines.driving import drain, ids_of, sequence
from workers.engines.llama_cpp.engine import LlamaCppEngine

pytestmark = pytest.mark.real_engine

# One or two of each kind of memory; the rest in test_gguf_every.py.
_NAMES = (
    "llama qwen3moe phi3 gemma3 gpt-oss deepseek2 mamba mamba2 rwkv7 lfm2 granitehybrid jamba"
    " falcon-h1 qwen35"
).split()
NAMES = chosen(_NAMES, GGUF)
COMMON = prompt_of(1, 90)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    made = Reference(name)
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(name: str) -> Iterator[LlamaCppEngine]:
    made = opened(name, num_slots=4)
    yield made
    made.close()


def test_alone_it_says_what_llama_cpp_says(engine: LlamaCppEngine, reference: Reference) -> None:
    prompt = prompt_of(2, 40)
    (answer,) = answers(engine, [prompt], 16)
    assert reference.differs(prompt, answer.ids) is None


def test_together_and_with_a_common_beginning(engine: LlamaCppEngine, reference: Reference) -> None:
    prompts = [prompt_of(10 + n, 110 + 7 * n, COMMON) for n in range(6)]
    for prompt, answer in zip(prompts, answers(engine, prompts, 12), strict=True):
        assert reference.differs(prompt, answer.ids) is None


@pytest.mark.parametrize("num_common", [1, 60])
def test_one_that_comes_while_others_run_that_begin_alike(
    engine: LlamaCppEngine, reference: Reference, num_common: int
) -> None:
    common = prompt_of(20 + num_common, num_common)
    prompts = [prompt_of(30 + n, 80 + 9 * n, common) for n in range(5)]
    sequences = [sequence(prompt, 14) for prompt in prompts]
    events = []
    for one in sequences:
        engine.submit(one)
        events += [event for _ in range(3) for event in engine.step()]
    events += drain(engine)
    for one in sequences:
        assert reference.differs(one.prompt, ids_of(events, one.sequence_id)) is None


def test_the_same_prompt_the_next_turn_and_a_branch(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    first = prompt_of(40, 150)
    (said,) = answers(engine, [first], 10)
    turns = [
        first,
        [*first, *said.ids, *prompt_of(41, 20)],
        prompt_of(42, 150, first[:120]),
        [*first, *said.ids[:4], *prompt_of(43, 20)],
        first,
    ]
    for prompt in turns:
        (answer,) = answers(engine, [prompt], 10)
        assert reference.differs(prompt, answer.ids) is None
    for prompt, answer in zip(turns, answers(engine, turns, 10), strict=True):
        assert reference.differs(prompt, answer.ids) is None


def test_an_abort_leaves_the_others_as_they_are(
    engine: LlamaCppEngine, reference: Reference
) -> None:
    prompts = [prompt_of(50 + n, 100 + n, COMMON[:50]) for n in range(4)]
    sequences = [sequence(prompt, 14) for prompt in prompts]
    for one in sequences:
        engine.submit(one)
    events = [event for _ in range(4) for event in engine.step()]
    engine.abort(sequences[0].sequence_id)
    events += [event for _ in range(3) for event in engine.step()]
    engine.abort(sequences[2].sequence_id)
    events += drain(engine)
    for one in (sequences[1], sequences[3]):
        assert reference.differs(one.prompt, ids_of(events, one.sequence_id)) is None


@pytest.mark.parametrize("name", ["mamba", "lfm2"], scope="module")
def test_drafts_are_refused_where_they_cannot_be_taken_back(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot take back drafts") as caught:
        opened(name, num_draft_tokens=4)
    assert caught.value.param == "num_draft_tokens"
    with pytest.raises(ModelLoadError, match="cannot draft"):
        opened("llama", draft_path=file_of(name))
