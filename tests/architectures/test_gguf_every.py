"""Every GGUF architecture whose file we can write: its text, its cache, its vectors."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.modelfiles.architectures import ARCHITECTURES
from tests.architectures.chosen import GGUF, chosen
from tests.architectures.documented import gguf_memories
from tests.architectures.gguf_reference import (
    GENERATING,
    Reference,
    answers,
    opened,
    prompt_of,
    vectors,
)
from tests.engines.driving import drain, ids_of, sequence
from workers.engines.llama_cpp.engine import LlamaCppEngine

pytestmark = pytest.mark.real_engine

# This version of llama.cpp reads two of their prompts in one pass wrongly.
ALONE = {"arwkv7", "plamo2"}
DOCUMENTED = gguf_memories()
COMMON = prompt_of(1, 70)


def test_the_document_lists_every_architecture_that_is_tried() -> None:
    assert DOCUMENTED.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", chosen(GENERATING, GGUF))
def test_its_text_and_its_vectors_are_those_of_llama_cpp(name: str) -> None:
    engine, reference = opened(name, num_slots=3), Reference(name)
    try:
        assert _memory(engine) == DOCUMENTED[name]
        assert engine.info.num_slots == (1 if name in ALONE else 3)
        _turns(engine, reference)
        _company(engine, reference)
        _vectors(engine, name)
    finally:
        engine.close()
        reference.close()


def _memory(engine: LlamaCppEngine) -> str:
    """The document's word for it."""
    traits = engine._memory.traits
    if not traits.can_cut:
        return "whole states"
    return "sliding window" if traits.window else "cut anywhere"


def _turns(engine: LlamaCppEngine, reference: Reference) -> None:
    """The first turn of a chat, the same prompt again, and the next turn."""
    first = prompt_of(2, 100)
    (said,) = answers(engine, [first], 8)
    assert len(said.ids) == 8
    for prompt in (first, [*first, *said.ids, *prompt_of(3, 20)]):
        (answer,) = answers(engine, [prompt], 8)
        assert answer.prefills[-1].num_cached >= 64
        assert reference.differs(prompt, answer.ids) is None
    assert reference.differs(first, said.ids) is None


def _company(engine: LlamaCppEngine, reference: Reference) -> None:
    """Four with a common beginning, each a step after the other; one is aborted."""
    sequences = [sequence(prompt_of(10 + n, 80 + 9 * n, COMMON), 8) for n in range(4)]
    events = []
    for one in sequences:
        engine.submit(one)
        events += engine.step()
    engine.abort(sequences[1].sequence_id)
    events += drain(engine)
    for one in (sequences[0], *sequences[2:]):
        assert reference.differs(one.prompt, ids_of(events, one.sequence_id)) is None


def _vectors(engine: LlamaCppEngine, name: str) -> None:
    inputs = [prompt_of(20 + n, 10 + 20 * n) for n in range(3)]
    found = np.array(engine.embed(inputs, None))
    assert np.abs(found - vectors(name, inputs)).max() < 1e-3
