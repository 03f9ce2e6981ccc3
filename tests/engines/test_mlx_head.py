"""The first token of an answer comes of the pass that reads the prompt, and is the right one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import qwen3
from mlx_lm.tuner.lora import LoRALinear

from jobs.contract.sampling import Sampling
from tests.engines.tiny_mlx import (
    GREEDY,
    QWEN,
    SIZES,
    VOCAB_SIZE,
    ids,
    opened,
    run,
    write_gemma,
    write_qwen,
)
from workers.engines.base import FinishReason, Prefill, Sequence, StepEvent, Token
from workers.engines.mlx import library
from workers.engines.mlx.engine import MlxEngine
from workers.engines.mlx.head import find_head

PROMPT = list(range(5, 45))
DRAWING = Sampling(temperature=0.8, top_p=0.9, seed=11, ignore_eos=True)
PENALIZED = Sampling(temperature=0.0, ignore_eos=True, repetition_penalty=1.5)
TOP_THREE = Sampling(temperature=0.0, ignore_eos=True, num_logprobs=3)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


def model_of(**changes: Any) -> qwen3.Model:
    return qwen3.Model(qwen3.ModelArgs.from_dict(QWEN | changes))


def quantized(model: nn.Module) -> nn.Module:
    nn.quantize(model, 32, 4)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "embedding": model_of,
    "linear": lambda: model_of(tie_word_embeddings=False),
    "quantized embedding": lambda: quantized(model_of()),
    "quantized linear": lambda: quantized(model_of(tie_word_embeddings=False)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_row_of_logits_is_the_same(kind: str) -> None:
    model = MODELS[kind]()
    tokens = mx.array([PROMPT])
    expected = model(tokens, cache=library.new_cache(model))
    head = find_head(model, VOCAB_SIZE)
    assert head is not None
    with head.last_only():
        last = model(tokens, cache=library.new_cache(model))
    assert last.shape == (1, 1, VOCAB_SIZE)
    assert mx.allclose(last[:, -1], expected[:, -1], atol=1e-5)
    assert mx.array_equal(model(tokens, cache=library.new_cache(model)), expected)


def test_two_layers_that_could_be_it_are_none() -> None:
    model = model_of(intermediate_size=VOCAB_SIZE)
    tokens = mx.array([PROMPT])
    expected = model(tokens)
    assert find_head(model, VOCAB_SIZE) is None
    assert mx.array_equal(model(tokens), expected)


def test_a_head_with_an_adapter_is_none() -> None:
    model = model_of(tie_word_embeddings=False)
    model.lm_head = LoRALinear.from_base(model.lm_head, r=4)
    plain = type(model.lm_head.linear)
    assert find_head(model, VOCAB_SIZE) is None
    assert type(model.lm_head.linear) is plain


class CountingModel(qwen3.Model):  # type: ignore[misc, unused-ignore]
    """Its own code counts on a row of logits for each token."""

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        return super().__call__(inputs, cache).reshape(*inputs.shape, VOCAB_SIZE)


def test_a_model_that_counts_on_all_rows_stays_as_it_is() -> None:
    model = CountingModel(qwen3.ModelArgs.from_dict(QWEN))
    assert find_head(model, VOCAB_SIZE) is None
    assert model(mx.array([PROMPT])).shape == (1, len(PROMPT), VOCAB_SIZE)


def without_head(engine: MlxEngine) -> MlxEngine:
    """The engine as it is for a model whose head cannot be told."""
    engine._prefill._head = None
    return engine


@pytest.mark.parametrize("sampling", [GREEDY, DRAWING, PENALIZED, TOP_THREE])
def test_the_tokens_are_those_of_a_step_of_their_own(qwen: Path, sampling: Sampling) -> None:
    sequences = [Sequence(i, PROMPT[: 2 + 9 * i], 12, sampling) for i in range(4)]
    ours = run(opened(qwen), sequences)
    expected = run(without_head(opened(qwen)), sequences)
    assert [ids(one) for one in ours.values()] == [ids(one) for one in expected.values()]
    for one, other in zip(ours.values(), expected.values(), strict=True):
        assert [t.logprob for t in one] == pytest.approx([t.logprob for t in other], abs=1e-4)
        assert [len(t.top_logprobs) for t in one] == [len(t.top_logprobs) for t in other]


def first_events(engine: MlxEngine, *sequences: Sequence) -> list[StepEvent]:
    for sequence in sequences:
        engine.submit(sequence)
    return engine.step()


def test_the_step_that_ends_a_prompt_gives_the_first_token(qwen: Path) -> None:
    engine = opened(qwen)
    prefill, token = first_events(engine, Sequence(0, PROMPT, 9, GREEDY))
    assert isinstance(prefill, Prefill)
    assert (prefill.num_done, prefill.num_total) == (40, 40)
    assert isinstance(token, Token)
    assert token.finish is None
    assert [e.sequence_id for _ in range(3) for e in engine.step()] == [0, 0, 0]


def test_an_answer_of_one_token_ends_with_its_prompt_and_leaves_it(qwen: Path) -> None:
    engine = opened(qwen)
    _, token = first_events(engine, Sequence(0, PROMPT, 1, GREEDY))
    assert isinstance(token, Token)
    assert token.finish is FinishReason.LENGTH
    assert not engine.has_work
    prefill, _ = first_events(engine, Sequence(1, [*PROMPT, 99, 98, 97], 1, GREEDY))
    assert isinstance(prefill, Prefill)
    assert prefill.num_cached == len(PROMPT)


def test_who_comes_with_a_first_token_does_not_wait_for_two_prompts(qwen: Path) -> None:
    engine = opened(qwen, step_budget_s=1e-6)  # 16 tokens a step
    engine.submit(Sequence(0, PROMPT[:5], 8, GREEDY))
    while not any(isinstance(event, Token) for event in engine.step()):
        pass
    engine.submit(Sequence(1, PROMPT * 5, 8, GREEDY))
    for _ in range(5):
        events = engine.step()
        assert [e.sequence_id for e in events if isinstance(e, Token)] == [0]
        assert [e.sequence_id for e in events if isinstance(e, Prefill)] == [1]


def test_a_prompt_beyond_a_sliding_window_can_be_asked_again(tmp_path: Path) -> None:
    """Its state cannot be taken back by a token, so the last one is not read with the others."""
    engine = opened(write_gemma(tmp_path / "gemma"))
    first = first_events(engine, Sequence(0, PROMPT, 4, GREEDY))
    assert not any(isinstance(event, Token) for event in first)
    while engine.has_work:
        engine.step()
    again = first_events(engine, Sequence(1, PROMPT, 4, GREEDY))
    assert [e.num_cached for e in again if isinstance(e, Prefill)] == [len(PROMPT) - 1]


def test_within_its_window_it_is_as_any_other(tmp_path: Path) -> None:
    engine = opened(write_gemma(tmp_path / "gemma"))
    events = first_events(engine, Sequence(0, PROMPT[:12], 4, GREEDY))
    assert [type(event).__name__ for event in events] == ["Prefill", "Token"]
    while engine.has_work:
        engine.step()
    again = first_events(engine, Sequence(1, PROMPT[:12], 4, GREEDY))
    assert [e.num_cached for e in again if isinstance(e, Prefill)] == [11]


def test_log_probabilities_of_the_prompt_need_all_rows(qwen: Path) -> None:
    engine = opened(qwen)
    events = first_events(engine, Sequence(0, PROMPT, 2, TOP_THREE, num_prompt_logprobs=2))
    assert [type(event).__name__ for event in events] == ["Prefill", "PromptLogprobs"]


def test_the_sizes_here_have_one_layer_as_wide_as_the_vocabulary() -> None:
    assert VOCAB_SIZE not in [size for name, size in SIZES.items() if name != "vocab_size"]
