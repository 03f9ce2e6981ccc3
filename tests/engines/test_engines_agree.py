"""The same float32 weights in both formats: each log-probability is that of a full forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from jobs.contract.sampling import Sampling
from scripts.make_model import make_model
from scripts.modelfiles.gguf_file import GgufType
from scripts.modelfiles.mlx_folder import MlxType
from scripts.modelfiles.shape import PRESETS
from tests.engines.driving import Transcript, drain, run, sequence
from workers.engines.base import Engine, EngineOptions, PromptLogprobs
from workers.engines.factory import open_engine
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.load import context

SAMPLING = Sampling(temperature=0.0, ignore_eos=True, num_logprobs=5)
PROMPTS = [
    [(17 * step + 31 * number) % 500 + 10 for step in range(20 + 45 * number)]
    for number in range(5)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_model(path, PRESETS["tiny"], mlx_type=MlxType.FLOAT32, gguf_type=GgufType.F32)
    return path


@pytest.fixture(params=["llama-cpp", "mlx"])
def engine(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    # For this comparison only: KV bits of 32, and no flash attention, which rounds to 16.
    monkeypatch.setattr(context, "FLASH_ATTENTION", lib.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    monkeypatch.setitem(context.KV_TYPES, 32, lib.GGML_TYPE_F32)
    is_gguf = request.param == "llama-cpp"
    path = folder.with_name("tiny.gguf") if is_gguf else folder
    options = EngineOptions(kv_bits=32 if is_gguf else None)
    engine = open_engine(request.param, path, options, lambda fraction: None)
    yield engine
    engine.close()


def full_pass_of_mlx_lm(folder: Path, tokens: list[int]) -> np.ndarray:
    """Log-probabilities at every place, shape (num_tokens, vocab_size)."""
    model, _ = load_model(folder)
    logits = model(mx.array([tokens]))[0].astype(mx.float32)
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


def full_pass_of_engine(engine: Engine, tokens: list[int]) -> np.ndarray:
    """The same for all but the last token, by reading the whole text as one uncached prompt."""
    vocab_size = engine.info.vocab_size
    one = dataclasses.replace(sequence(tokens, 1), num_prompt_logprobs=vocab_size)
    engine.submit(one)
    (event,) = [e for e in drain(engine) if isinstance(e, PromptLogprobs)]
    found = np.empty((len(tokens) - 1, vocab_size))
    for place, (_, top) in enumerate(event.entries):
        ids, values = zip(*top, strict=True)
        found[place, list(ids)] = values
    return found


def check(expected: np.ndarray, prompt: list[int], transcript: Transcript, within: float) -> None:
    for number, token in enumerate(transcript.tokens):
        row = expected[len(prompt) + number - 1]
        assert token.logprob == pytest.approx(row[token.token_id], abs=within)
        for token_id, logprob in token.top_logprobs:
            assert logprob == pytest.approx(row[token_id], abs=within)


def test_alone_in_a_batch_and_from_the_cache(engine: Engine, folder: Path) -> None:
    num_cached = 0
    for _ in range(2):
        transcripts = run(engine, [sequence(prompt, 16, SAMPLING) for prompt in PROMPTS])
        for prompt, transcript in zip(PROMPTS, transcripts, strict=True):
            text = prompt + transcript.ids
            check(full_pass_of_engine(engine, text), prompt, transcript, within=1e-3)
            check(full_pass_of_mlx_lm(folder, text), prompt, transcript, within=1e-3)
            num_cached += transcript.prefills[-1].num_cached
    assert num_cached > 0
