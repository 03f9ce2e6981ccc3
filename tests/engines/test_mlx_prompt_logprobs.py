"""Log-probabilities of a prompt's own tokens are those of one full forward pass."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from jobs.contract.sampling import Sampling
from workers.engines.base import EngineOptions, PromptLogprobs, Sequence, Token
from workers.engines.mlx.engine import open_mlx

DEMO = Path(__file__).parents[2] / "models" / "demo"


@pytest.mark.parametrize("num_tokens", [2, 40, 600])
def test_each_prompt_token_has_the_log_probability_of_a_full_pass(num_tokens: int) -> None:
    engine = open_mlx(DEMO, EngineOptions(), lambda fraction: None)
    prompt = [(7 * step) % 500 + 10 for step in range(num_tokens)]
    engine.submit(Sequence(1, prompt, 2, Sampling(temperature=0.0), num_prompt_logprobs=3))
    events = []
    while engine.has_work:
        events += engine.step()
    kinds = [type(event) for event in events]
    assert kinds.count(PromptLogprobs) == 1
    assert kinds.index(PromptLogprobs) < kinds.index(Token)
    entries = next(event.entries for event in events if isinstance(event, PromptLogprobs))
    logits = engine._prefill._model(mx.array([prompt]))[0].astype(mx.float32)
    full = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    assert len(entries) == num_tokens - 1
    for place, (logprob, top) in enumerate(entries):
        assert abs(logprob - full[place, prompt[place + 1]]) < 1e-3
        assert [round(value, 2) for _, value in top] == sorted(
            (round(value, 2) for _, value in top), reverse=True
        )
        assert abs(top[0][1] - full[place].max()) < 1e-3
    engine.close()
