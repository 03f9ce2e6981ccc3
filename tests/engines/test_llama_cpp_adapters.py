"""LoRA adapters at load and per sequence, KV bits, embeddings."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.contract.errors import (
    AdapterNotFoundError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from scripts.make_model import make_adapter
from scripts.modelfiles.shape import Shape
from tests.engines.driving import chat, drain, ids_of, run, run_one, sequence
from workers.engines.base import EngineOptions, Pooling
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

MODELS = Path(__file__).parents[2] / "models"
DEMO = MODELS / "demo.gguf"


def opened(options: EngineOptions) -> LlamaCppEngine:
    return open_llama_cpp(DEMO, options, lambda fraction: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters, ``one.gguf`` and ``two.gguf``, and a file that is none."""
    folder = tmp_path_factory.mktemp("adapters")
    shape = Shape.from_config(MODELS / "demo" / "config.json")
    for seed, name in enumerate(("one", "two"), start=1):
        make_adapter(folder / name, shape, scale=4.0, seed=seed, mlx=False)
    (folder / "broken.gguf").write_bytes(b"GGUF")
    shutil.copy(DEMO, folder / "model.gguf")
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LlamaCppEngine]:
    engine = opened(EngineOptions(adapters_dir=folder))
    yield engine
    engine.close()


def with_adapter(prompt: list[int], name: str | None, max_tokens: int = 12):
    return dataclasses.replace(sequence(prompt, max_tokens), adapter=name)


def test_sequences_with_different_adapters_run_side_by_side(engine: LlamaCppEngine) -> None:
    prompt = chat(engine, "Tell me a story, please.")
    names = [None, "one", "two", "one", None, "two.gguf"]
    alone = {}
    for name in ("one", "two", None):
        ones = [with_adapter(prompt, name)]
        alone[name] = run(engine, ones)[0].ids
    assert len({tuple(ids) for ids in alone.values()}) == 3, "adapters change the text"
    transcripts = run(engine, [with_adapter(prompt, name) for name in names])
    expected = [alone[name and name.removesuffix(".gguf")] for name in names]
    assert [one.ids for one in transcripts] == expected


def test_the_prompt_cache_of_one_adapter_serves_no_other(engine: LlamaCppEngine) -> None:
    prompt = list(range(100, 180))
    for name in ("one", "two", None):
        (first,) = run(engine, [with_adapter(prompt, name)])
        assert first.prefills[-1].num_cached == 0
        (again,) = run(engine, [with_adapter(prompt, name)])
        assert again.prefills[-1].num_cached == len(prompt) - 1
        assert again.ids == first.ids


def test_an_adapter_at_load_is_everybodys(folder: Path, engine: LlamaCppEngine) -> None:
    prompt = chat(engine, "Tell me a story, please.")
    loaded = opened(EngineOptions(adapters_dir=folder, adapter="one"))
    assert run_one(loaded, prompt).ids == run(engine, [with_adapter(prompt, "one")])[0].ids
    loaded.close()


@pytest.mark.parametrize("name", ["none", "../one", "/etc/passwd", "one\0", "broken", "model"])
def test_a_wrong_adapter_is_refused_by_name(engine: LlamaCppEngine, name: str) -> None:
    with pytest.raises((AdapterNotFoundError, InvalidRequestError)) as caught:
        engine.submit(with_adapter([40, 41], name))
    assert caught.value.param == "adapter_name"
    assert not engine.has_work


def test_a_wrong_adapter_at_load_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterNotFoundError, match="no adapter 'none' for llama-cpp"):
        opened(EngineOptions(adapters_dir=folder, adapter="none"))


# KV bits


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_kv_cache_answers_about_the_same(bits: int) -> None:
    exact, quantized = opened(EngineOptions()), opened(EngineOptions(kv_bits=bits))
    prompts = [chat(exact, text) for text in ("Hello!", "What is 3 + 4?", "Count from 1 to 6.")]
    same = [run_one(exact, p, 20).ids == run_one(quantized, p, 20).ids for p in prompts]
    assert any(same)
    exact.close()
    quantized.close()


def test_other_kv_bits_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        opened(EngineOptions(kv_bits=3))
    assert caught.value.param == "kv_bits"


# Embeddings


def test_vectors_have_length_one_and_are_those_of_the_text(engine: LlamaCppEngine) -> None:
    inputs = [chat(engine, text) for text in ("Hello!", "What is 3 + 4?", "Hello!")]
    for pooling in (None, Pooling.MEAN, Pooling.LAST, Pooling.CLS):
        vectors = np.asarray(engine.embed(inputs, pooling))
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
        assert vectors[0].tolist() == vectors[2].tolist()
        assert np.abs(vectors[0] - vectors[1]).max() > 0.01 or pooling is Pooling.CLS


def test_a_long_input_makes_room_for_itself(engine: LlamaCppEngine) -> None:
    (vector,) = engine.embed([[40, 41, 42] * 500], None)
    assert np.linalg.norm(vector) == pytest.approx(1.0)


def test_running_sequences_do_not_notice(engine: LlamaCppEngine) -> None:
    prompt = chat(engine, "Tell me a story, please.")
    expected = run_one(engine, prompt, 20).ids
    one = sequence(prompt, 20)
    engine.submit(one)
    events = engine.step()
    while engine.has_work:
        engine.embed([[50, 51, 52]], None)
        events += engine.step()
    assert ids_of(events + drain(engine), one.sequence_id) == expected


@pytest.mark.parametrize("ids", [[], [40] * 2049, [-1], [2**31]])
def test_an_input_that_cannot_be_embedded_is_refused(
    engine: LlamaCppEngine, ids: list[int]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        engine.embed([[40], ids], None)
    assert caught.value.param == "input"


def test_a_model_that_only_ranks_has_no_vectors(engine: LlamaCppEngine) -> None:
    embedder = engine._loaded.embedder
    with pytest.raises(UnsupportedParameterError):
        embedder._open(lib.LLAMA_POOLING_TYPE_RANK, 4)
    (vector,) = engine.embed([[40, 41]], None)
    assert np.linalg.norm(vector) == pytest.approx(1.0)
