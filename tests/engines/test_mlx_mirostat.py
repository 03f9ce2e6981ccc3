"""Mirostat's rows beside others in the MLX engine's batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from jobs.contract.sampling import Sampling
from tests.engines.driving import log_probabilities, next_token
from tests.engines.tiny_mlx import GREEDY, ids, opened, run, write_qwen
from workers.engines import mirostat, reference_sampler
from workers.engines.base import Sequence, Token
from workers.engines.mlx.engine import MlxEngine

MODES = pytest.mark.parametrize("mode", [1, 2])
PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlxEngine]:
    engine = opened(write_qwen(tmp_path_factory.mktemp("mlx") / "qwen"))
    yield engine
    engine.close()


def settings(mode: int, **others: float | dict[int, float]) -> Sampling:
    base = Sampling(mirostat_mode=mode, mirostat_tau=4.0, seed=3, ignore_eos=True)
    return msgspec.structs.replace(base, **others)


def sequence(sampling: Sampling, max_tokens: int = 20, sequence_id: int = 0) -> Sequence:
    return Sequence(sequence_id, PROMPT, max_tokens, sampling)


@MODES
def test_a_draw_is_that_of_plain_numpy(engine: MlxEngine, mode: int) -> None:
    sampling = settings(mode, temperature=0.7, presence_penalty=1.5, logit_bias={9: 2.0})
    logits = reference_sampler.add_bias(log_probabilities(engine, PROMPT), {9: 2.0, 256: -np.inf})
    logits = reference_sampler.penalise(logits, PROMPT, sampling)
    token, mu = mirostat.sample(logits, sampling, len(PROMPT), 8.0)
    found = next_token(engine, PROMPT, sampling)
    assert found.token_id == token
    assert found.mirostat_mu == pytest.approx(mu, abs=1e-3)


@MODES
def test_company_changes_neither_mirostats_rows_nor_the_others(
    engine: MlxEngine, mode: int
) -> None:
    seeded = Sampling(seed=4, temperature=0.8, top_k=20, ignore_eos=True)
    sequences = [
        sequence(sampling, 15 + i, i)
        for i, sampling in enumerate([GREEDY, settings(mode), seeded, settings(mode, seed=8)])
    ]
    together = run(engine, sequences)
    alone = [run(engine, [one])[one.sequence_id] for one in sequences]
    assert [ids(tokens) for tokens in together.values()] == [ids(tokens) for tokens in alone]


def test_mu_is_reported_for_who_has_one(engine: MlxEngine) -> None:
    found = run(engine, [sequence(settings(2), 5, 0), sequence(GREEDY, 5, 1)])
    assert all(token.mirostat_mu is not None for token in found[0])
    assert all(token.mirostat_mu is None for token in found[1])


@MODES
def test_a_cut_sequence_goes_on_where_mu_stood(engine: MlxEngine, mode: int) -> None:
    whole = run(engine, [sequence(settings(mode))])[0]
    cut = replace(
        sequence(settings(mode), 10),
        prompt=PROMPT + ids(whole)[:10],
        mirostat_mu=whole[9].mirostat_mu,
    )
    rest = run(engine, [cut])[0]
    assert ids(rest) == ids(whole)[10:]
    assert rest[-1].mirostat_mu == pytest.approx(whole[-1].mirostat_mu, abs=1e-3)


def test_a_greedy_sequence_ignores_mirostat(engine: MlxEngine) -> None:
    greedy = settings(2, temperature=0.0)
    assert run(engine, [sequence(greedy)]) == run(engine, [sequence(GREEDY)])


def test_log_probabilities_are_those_of_the_tokens_drawn(engine: MlxEngine) -> None:
    token = next_token(engine, PROMPT, settings(2, num_logprobs=0))
    expected = log_probabilities(engine, PROMPT)[token.token_id]
    assert token.logprob == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("sampling", "num_ahead"), [(settings(1), 0), (settings(2), 0), (GREEDY, 1)]
)
def test_no_token_is_held_back_by_a_draw_that_waits_for_its_pass(
    engine: MlxEngine, sampling: Sampling, num_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, num_passes = engine._batch._model, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_passes
        num_passes += 1
        return model(*args, **kwargs)

    monkeypatch.setattr(engine._batch, "_model", counted)
    engine.submit(sequence(msgspec.structs.replace(sampling, ignore_eos=True), 6))
    num_tokens = -1  # the first is drawn by the pass of the prompt
    while num_tokens < 4:
        num_tokens += sum(isinstance(event, Token) for event in engine.step())
        assert num_passes == (num_tokens + num_ahead if num_tokens > 0 else num_passes)
    engine.abort(0)
