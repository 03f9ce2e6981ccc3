"""Drafts change how many tokens a step yields, and never a token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.models import qwen3

from jobs.contract.errors import InvalidRequestError, ModelLoadError, UnsupportedParameterError
from jobs.contract.sampling import Sampling
from tests.engines.mlx_demo import DEMO, answers, held_out, open_demo
from tests.engines.tiny_mlx import (
    GREEDY,
    QWEN,
    VOCAB_SIZE,
    ids,
    opened,
    run,
    write_gemma,
    write_model,
    write_qwen,
)
from workers.engines.base import Engine, EngineOptions, FinishReason, Sequence, Token
from workers.engines.mlx.batch.drafting import TextDrafter
from workers.engines.mlx.engine import MlxEngine, open_mlx

PROMPTS = [[5, 6, 7], [9], list(range(100)) * 3, [1, 2, 3, 1, 2, 3, 1, 2]]
SETTINGS = {
    "greedy": GREEDY,
    "seeded": Sampling(seed=5, temperature=0.7, top_k=20, ignore_eos=True),
    "penalised": Sampling(
        temperature=0.0, frequency_penalty=0.3, repetition_context_size=40, ignore_eos=True
    ),
    "mirostat": Sampling(mirostat_mode=2, seed=2, ignore_eos=True),
    "xtc": Sampling(
        seed=5, top_k=20, xtc_probability=0.5, dynatemp_range=0.3, temperature=0.7, ignore_eos=True
    ),
    "dry": Sampling(temperature=0.0, dry_multiplier=0.8, dry_allowed_length=1, ignore_eos=True),
    "log-probabilities": Sampling(temperature=0.0, num_logprobs=2, ignore_eos=True),
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the same tokens, guesses badly, and has fewer outputs."""
    config = QWEN | {"num_hidden_layers": 1, "vocab_size": VOCAB_SIZE - 20}
    module = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    return write_model(tmp_path_factory.mktemp("mlx") / "other", module, config)


@pytest.fixture(scope="module", params=["text", "itself", "another model"])
def drafting(request: pytest.FixtureRequest, qwen: Path, other: Path) -> Iterator[MlxEngine]:
    paths = {"text": None, "itself": qwen, "another model": other}
    engine = opened(qwen, draft_path=paths[request.param], num_draft_tokens=4)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(qwen: Path) -> Iterator[MlxEngine]:
    engine = opened(qwen, num_slots=1)
    yield engine
    engine.close()


def sequences(sampling: Sampling, max_tokens: int = 60) -> list[Sequence]:
    return [Sequence(i, prompt, max_tokens, sampling) for i, prompt in enumerate(PROMPTS)]


def close_to(tokens: list[Token]) -> list[Any]:
    """All that was reported, log-probabilities rounded."""
    return [
        (t.token_id, t.finish, t.is_end, t.logprob and round(t.logprob, 3), len(t.top_logprobs))
        for t in tokens
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_tokens_are_those_without_drafts(
    name: str, drafting: MlxEngine, plain: MlxEngine
) -> None:
    expected = run(plain, sequences(SETTINGS[name]))
    found = run(drafting, sequences(SETTINGS[name]))
    assert [close_to(t) for t in found.values()] == [close_to(t) for t in expected.values()]
    assert all(len(tokens) == 60 for tokens in found.values())


@pytest.mark.parametrize("options", [{}, {"draft_path": DEMO}], ids=["text", "itself"])
def test_the_demo_model_says_the_same_with_drafts(options: dict[str, Any]) -> None:
    plain, drafting = open_demo(), open_demo(num_draft_tokens=4, **options)
    prompts = held_out(plain, every=12)
    assert answers(drafting, prompts, 60) == answers(plain, prompts, 60)
    seeded = Sampling(seed=3, temperature=0.6, top_p=0.9)
    assert answers(drafting, prompts[::3], 30, seeded) == answers(plain, prompts[::3], 30, seeded)


def tokens_by_step(engine: Engine, sequence: Sequence) -> list[list[Token]]:
    engine.submit(sequence)
    steps = []
    while engine.has_work:
        steps.append([event for event in engine.step() if isinstance(event, Token)])
    return [step for step in steps if step]


def test_a_step_yields_a_token_and_each_draft_that_was_right(qwen: Path) -> None:
    engine = opened(qwen, draft_path=qwen, num_draft_tokens=4)
    steps = tokens_by_step(engine, Sequence(0, [5, 6, 7], 23, GREEDY))
    # The first comes with the prompt.
    assert [len(step) for step in steps] == [1, 5, 5, 5, 5, 2]
    assert steps[-1][-1].finish is FinishReason.LENGTH


def test_an_end_among_the_drafts_ends_the_sequence(qwen: Path, tmp_path: Path) -> None:
    text = ids(run(opened(qwen), [Sequence(0, [5, 6, 7], 20, GREEDY)])[0])
    end = next(i for i in range(5, 20) if i % 5 not in (0, 1) and text[i] not in text[:i])
    folder = Path(shutil.copytree(qwen, tmp_path / "ends"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": text[end]}))
    engine = opened(folder, draft_path=folder, num_draft_tokens=4)
    steps = tokens_by_step(engine, Sequence(1, [5, 6, 7], 20, Sampling(temperature=0.0)))
    assert [t.token_id for step in steps for t in step] == text[: end + 1]
    assert len(steps[-1]) == (end - 1) % 5 + 1
    assert steps[-1][-1].finish is FinishReason.STOP
    assert not engine.has_work


def test_a_long_prompt_and_an_abort_leave_both_models_right(
    drafting: MlxEngine, plain: MlxEngine
) -> None:
    long = [(7 * i) % 250 for i in range(400)]
    drafting.submit(Sequence(9, long, 50, GREEDY))
    for _ in range(12):
        drafting.step()
    drafting.abort(9)
    for prompt in (long, [*long[:300], 4, 5], [3, 3, 3]):
        one = Sequence(1, prompt, 30, GREEDY)
        assert ids(run(drafting, [one])[1]) == ids(run(plain, [one])[1])


def test_a_full_context_ends_with_length(drafting: MlxEngine) -> None:
    tokens = run(drafting, [Sequence(0, [1] * 500, 100, GREEDY)])[0]
    assert len(tokens) == 12
    assert tokens[-1].finish is FinishReason.LENGTH


def test_the_next_turn_reuses_the_turn_before(drafting: MlxEngine, plain: MlxEngine) -> None:
    prompt = list(range(60))
    answer = ids(run(drafting, [Sequence(0, prompt, 30, GREEDY)])[0])
    turn = Sequence(1, [*prompt, *answer, 4, 5, 6], 30, GREEDY)
    drafting.submit(turn)
    assert drafting.step()[0].num_cached >= len(prompt) + len(answer) - 1
    drafting.abort(1)
    assert ids(run(drafting, [turn])[1]) == ids(run(plain, [turn])[1])


def test_there_is_one_slot(drafting: MlxEngine) -> None:
    assert drafting.info.num_slots == 1


def test_drafts_go_with_a_quantized_kv_cache(qwen: Path) -> None:
    plain, drafting = opened(qwen, kv_bits=8), opened(qwen, kv_bits=8, num_draft_tokens=4)
    found = run(drafting, sequences(GREEDY))
    assert [ids(t) for t in found.values()] == [
        ids(t) for t in run(plain, sequences(GREEDY)).values()
    ]


# Loading


def test_a_model_that_cannot_take_tokens_back_is_refused_by_name(
    qwen: Path, tmp_path: Path
) -> None:
    gemma = write_gemma(tmp_path / "gemma")
    cases = [
        (gemma, {"num_draft_tokens": 2}, "num_draft_tokens"),
        (gemma, {"draft_path": qwen}, "draft_model"),
        (qwen, {"draft_path": gemma}, "draft_model"),
    ]
    for path, options, field in cases:
        with pytest.raises(UnsupportedParameterError, match="cannot be trimmed") as refusal:
            opened(path, **options)
        assert refusal.value.param == field


def test_a_draft_model_of_another_vocabulary_is_refused(qwen: Path) -> None:
    with pytest.raises(ModelLoadError, match="vocabulary differs") as refusal:
        opened(qwen, draft_path=DEMO)
    assert refusal.value.param == "draft_model"


def test_a_broken_draft_model_is_refused_before_the_model_is_loaded(
    qwen: Path, tmp_path: Path
) -> None:
    seen: list[float] = []
    with pytest.raises(ModelLoadError, match="no model folder"):
        open_mlx(qwen, EngineOptions(draft_path=tmp_path / "none"), seen.append)
    assert seen == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"num_draft_tokens": 0}, "num_draft_tokens"),
        ({"num_draft_tokens": 65}, "num_draft_tokens"),
        ({"num_draft_tokens": 2, "num_slots": 2}, "num_draft_tokens"),
        ({"draft_path": DEMO, "num_slots": 2}, "draft_model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        open_demo(**options)
    assert refusal.value.param == field


def test_progress_rises_over_both_models(qwen: Path) -> None:
    seen: list[float] = []
    open_mlx(qwen, EngineOptions(draft_path=qwen), seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == pytest.approx(1.0)


def test_a_sequence_does_not_look_into_the_one_before() -> None:
    lookup = TextDrafter()
    lookup.start([])
    lookup.draft([1, 2, 3, 4], 2)
    lookup.start([])
    assert lookup.draft([2, 3], 2) == []
    assert lookup.draft([2], 2) == []
