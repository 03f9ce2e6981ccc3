"""GGUF models that do not generate: encoders embed, the rest is refused by the name of its kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from tests.architectures.chosen import GGUF, chosen
from tests.architectures.documented import gguf_memories
from tests.architectures.gguf_reference import ENCODERS, REFUSED, file_of, prompt_of, vectors
from tests.engines.driving import GREEDY, sequence
from workers.engines.base import Engine, EngineOptions
from workers.engines.llama_cpp.encoder import open_gguf

pytestmark = pytest.mark.real_engine

DOCUMENTED = gguf_memories()
OPTIONS = EngineOptions(num_threads=1)


def opened(name: str, options: EngineOptions = OPTIONS) -> Engine:
    return open_gguf(file_of(name), options, lambda fraction: None)


@pytest.mark.parametrize("name", chosen(ENCODERS, GGUF))
def test_an_encoder_embeds_as_llama_cpp_does(name: str) -> None:
    assert DOCUMENTED[name] == "encoder"
    engine = opened(name)
    inputs = [prompt_of(n, 10 + 30 * n) for n in range(3)]
    assert np.abs(np.array(engine.embed(inputs, None)) - vectors(name, inputs)).max() < 1e-3
    engine.close()


@pytest.mark.parametrize("name", chosen(ENCODERS, GGUF))
def test_an_encoder_that_is_asked_for_text_says_what_it_is(name: str) -> None:
    engine = opened(name)
    for ask in (lambda: engine.check(GREEDY), lambda: engine.submit(sequence([5, 6]))):
        with pytest.raises(InvalidRequestError, match=rf"is an encoder \({name}\)"):
            ask()
    assert not engine.has_work
    assert engine.step() == []
    engine.close()
    engine.close()


@pytest.mark.parametrize("name", REFUSED)
def test_what_neither_generates_nor_embeds_is_refused_at_load(name: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"{REFUSED[name]} \({name}\).*not supported"):
        opened(name)
    assert DOCUMENTED[name] in REFUSED[name]


@pytest.mark.parametrize("option", ["num_draft_tokens", "kv_bits"])
def test_an_option_that_only_generation_has_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        opened("bert", replace(OPTIONS, **{option: 4}))
    assert caught.value.param == option


def test_an_encoder_cannot_draft() -> None:
    with pytest.raises(ModelLoadError, match="cannot generate"):
        opened("llama", replace(OPTIONS, draft_path=file_of("bert")))
