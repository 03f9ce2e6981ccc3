"""What only the MLX engine has; the behaviour it shares is in test_engine_contract.py."""

from __future__ import annotations

import importlib.metadata
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import cache as mlx_cache

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling
from tests.engines.tiny_mlx import (
    GREEDY,
    VOCAB_SIZE,
    ids,
    opened,
    run,
    write_gemma,
    write_qwen,
)
from workers.engines.base import FinishReason, Prefill, Sequence, SequenceFailure, Token
from workers.engines.mlx.batch.prefill import PrefillQueue
from workers.engines.mlx.batch.row import Row
from workers.engines.mlx.cache.prompt_cache import PromptStore
from workers.engines.mlx.engine import MlxEngine


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma(tmp_path_factory.mktemp("mlx") / "gemma")


@pytest.fixture
def engine(qwen: Path) -> Iterator[MlxEngine]:
    engine = opened(qwen)
    yield engine
    engine.close()


def test_the_pinned_mlx_lm_is_installed() -> None:
    """After an upgrade read models/cache.py and utils.load_model again, then change the number."""
    assert importlib.metadata.version("mlx-lm") == "0.32.2"


@pytest.mark.parametrize("name", ["qwen", "gemma"])
def test_company_of_any_length_does_not_change_greedy_text(
    name: str, request: pytest.FixtureRequest
) -> None:
    engine = opened(request.getfixturevalue(name), num_slots=3)
    lengths = [1, 2, 40, 100, 7, 1]
    sequences = [
        Sequence(i, [(i + j) % 250 for j in range(n)], 5 + 9 * i, GREEDY)
        for i, n in enumerate(lengths)
    ]
    together = run(engine, sequences)
    alone = [run(engine, [sequence])[sequence.sequence_id] for sequence in sequences]
    assert list(together.values()) == alone
    assert [len(tokens) for tokens in alone] == [s.max_tokens for s in sequences]


def test_the_running_row_gets_a_token_at_every_step_of_a_long_prefill(engine: MlxEngine) -> None:
    engine.submit(Sequence(0, [1], 400, GREEDY))
    engine.step()
    engine.submit(Sequence(1, [2] * 500, 1, GREEDY))
    events = [engine.step()]
    while not any(isinstance(e, Token) and e.sequence_id == 1 for e in events[-1]):
        events.append(engine.step())
    assert all(any(isinstance(e, Token) and e.sequence_id == 0 for e in step) for step in events)
    progress = [e.num_done for step in events for e in step if isinstance(e, Prefill)]
    assert progress == sorted(progress)
    assert len(progress) > 1
    assert progress[-1] == 500


def nothing(key: bytes, max_tokens: int) -> None:
    """A batch without any running prompt."""


class ExhaustedModel:
    """Has no memory for prompts that hold the token 9."""

    def make_cache(self) -> list[Any]:
        return []

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        if 9 in np.array(tokens):
            raise RuntimeError("[malloc] Unable to allocate")
        return mx.zeros((*tokens.shape, VOCAB_SIZE))


def test_a_prompt_that_finds_no_memory_fails_alone() -> None:
    queue, joined = PrefillQueue(ExhaustedModel(), PromptStore(0), nothing), list[Row]()
    for sequence_id, prompt in enumerate(([1, 2, 3], [1, 9, 3], [4, 5, 6])):
        queue.add(Row(Sequence(sequence_id, prompt, 1, GREEDY), 1))
    events = queue.step(lambda row, cache: joined.append(row))
    assert events[1] == SequenceFailure(1, "[malloc] Unable to allocate")
    assert [row.sequence.sequence_id for row in joined] == [0, 2]
    assert len(queue) == 0


def test_a_model_whose_caches_cannot_be_merged_has_one_slot(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(mlx_cache.KVCache, "merge")
    engine = opened(qwen, num_slots=4)
    assert engine.info.num_slots == 1
    tokens = run(engine, [Sequence(i, [i + 1], 3, GREEDY) for i in range(3)])
    assert [len(found) for found in tokens.values()] == [3, 3, 3]


def test_an_engine_lives_on_a_thread_of_its_own(qwen: Path, engine: MlxEngine) -> None:
    found: list[list[Token]] = []
    sequence = Sequence(0, [1, 2, 3], 8, GREEDY)
    thread = threading.Thread(target=lambda: found.append(run(opened(qwen), [sequence])[0]))
    thread.start()
    thread.join()
    assert found == [run(engine, [sequence])[0]]


def test_penalties_see_every_token_although_steps_overlap(engine: MlxEngine) -> None:
    strict = Sampling(
        temperature=0.0, ignore_eos=True, presence_penalty=1e4, repetition_context_size=512
    )
    prompt = [5, 6, 7]
    free, kept = run(engine, [Sequence(0, prompt, 60, GREEDY), Sequence(1, prompt, 60, strict)])
    assert len(set(prompt + ids(run(engine, [Sequence(1, prompt, 60, strict)])[1]))) == 63
    assert free != kept


def test_an_end_token_beyond_the_vocabulary_is_harmless(qwen: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "odd"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [256, 100000000]}')
    assert len(run(opened(folder), [Sequence(0, [1], 5, GREEDY)])[0]) == 5


def test_a_full_context_ends_with_length(engine: MlxEngine) -> None:
    tokens = run(engine, [Sequence(0, [1] * 500, 100, GREEDY)])[0]
    assert len(tokens) == 12
    assert tokens[-1].finish is FinishReason.LENGTH


def test_tokens_outside_the_vocabulary_are_refused(engine: MlxEngine) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        engine.check(Sampling(logit_bias={VOCAB_SIZE: 1.0}))
    assert refusal.value.param == "logit_bias"
    with pytest.raises(InvalidRequestError):
        engine.submit(Sequence(0, [VOCAB_SIZE], 1, GREEDY))
