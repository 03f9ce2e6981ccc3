"""Guesses save steps and change no text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from jobs.contract.sampling import Sampling
from scripts.make_model import make_model
from scripts.modelfiles.gguf_file import GgufType
from scripts.modelfiles.shape import Shape
from tests.engines.driving import chat, run, sequence
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
PLAIN = EngineOptions(prompt_cache_bytes=0)
TEXTS = [
    "Count from 1 to 20.",
    "Repeat after me: one two three one two three one two three",
    "What is 3 + 4?",
    "Hello! What can you do?",
]


@pytest.fixture(scope="module")
def plain() -> Iterator[LlamaCppEngine]:
    engine = opened(PLAIN)
    yield engine
    engine.close()


def opened(options: EngineOptions, path: Path = DEMO) -> LlamaCppEngine:
    return open_llama_cpp(path, options, lambda fraction: None)


DRAFTING = {
    "prompt lookup": EngineOptions(num_draft_tokens=4, prompt_cache_bytes=0),
    "draft model": EngineOptions(draft_path=DEMO, prompt_cache_bytes=0),
}
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "penalised": Sampling(temperature=0.0, repetition_penalty=1.2),
    "seeded": Sampling(temperature=0.6, top_k=10, seed=7),
    "mirostat": Sampling(temperature=0.6, mirostat_mode=2, mirostat_tau=2.0, seed=7),
    "xtc": Sampling(temperature=0.6, top_k=10, xtc_probability=0.5, xtc_threshold=1e-6, seed=7),
    "dry": Sampling(temperature=0.0, dry_multiplier=0.8, dry_allowed_length=1),
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
@pytest.mark.parametrize("options", DRAFTING.values(), ids=DRAFTING.keys())
def test_the_text_is_the_same_with_and_without(
    plain: LlamaCppEngine, options: EngineOptions, sampling: Sampling
) -> None:
    engine = opened(options)
    prompts = [chat(plain, text) for text in TEXTS]
    expected = run(plain, [sequence(prompt, 60, sampling) for prompt in prompts])
    got = run(engine, [sequence(prompt, 60, sampling) for prompt in prompts])
    assert [one.ids for one in got] == [one.ids for one in expected]
    assert [one.finish for one in got] == [one.finish for one in expected]
    engine.close()


@pytest.mark.parametrize("options", DRAFTING.values(), ids=DRAFTING.keys())
def test_right_guesses_save_steps(options: EngineOptions) -> None:
    engine = opened(options)
    prompt = chat(engine, "Repeat after me: one two three one two three one two three")
    (transcript,) = run(engine, [sequence(prompt, 60, Sampling(temperature=0.0, ignore_eos=True))])
    assert len(transcript.tokens) == 60
    assert transcript.steps[-1] - transcript.steps[0] < 45
    engine.close()


def test_a_drafts_cells_come_back(plain: LlamaCppEngine) -> None:
    engine = opened(DRAFTING["draft model"])
    run(engine, [sequence(chat(plain, text), 60) for text in TEXTS * 4])
    assert engine._memory.num_free == engine._memory.num_cells
    draft = engine._drafter
    assert draft is not None
    assert draft._memory.num_free == draft._memory.num_cells  # type: ignore[attr-defined]
    engine.close()


def test_a_draft_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    shape = Shape(64, 1, 2, 1, 32, 96, 4096)
    make_model(tmp_path / "other", shape, mlx_type=None, gguf_type=GgufType.F16)
    with pytest.raises(ModelLoadError, match="vocabulary"):
        opened(EngineOptions(draft_path=tmp_path / "other.gguf"))


@pytest.mark.parametrize("count", [0, -1, 1000])
def test_an_impossible_number_of_drafts_is_refused(count: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        opened(EngineOptions(num_draft_tokens=count))
    assert caught.value.param == "num_draft_tokens"
