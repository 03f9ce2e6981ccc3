"""Rows with a grammar or DRY: their next draw needs the last token, the pass before it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.sampling import Sampling
from tests.engines.tiny_mlx import GREEDY, VOCAB_SIZE, ids, opened, run, write_qwen
from workers.engines.base import Sequence, SequenceFailure
from workers.engines.mlx.engine import MlxEngine

PROMPT = [5, 6, 7, 8]
DRY = Sampling(temperature=0.8, seed=3, dry_multiplier=0.8, dry_allowed_length=1, ignore_eos=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlxEngine]:
    engine = opened(write_qwen(tmp_path_factory.mktemp("mlx") / "qwen"))
    yield engine
    engine.close()


@dataclass
class EveryThird:
    """Allows a third of the tokens, another one after each token; fails at the n-th."""

    fails_at: int = 1000
    happened: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def allowed(self) -> NDArray[np.bool_]:
        self.happened.append("mask")
        if len(self.tokens) == self.fails_at:
            raise ValueError("too ambiguous")
        found: NDArray[np.bool_] = np.arange(VOCAB_SIZE) % 3 == len(self.tokens) % 3
        return found

    def accept(self, token_id: int) -> None:
        self.happened.append("read")
        self.tokens.append(token_id)


def sequence(number: int, length: int, constraint: EveryThird | None = None) -> Sequence:
    return Sequence(number, PROMPT, length, GREEDY, constraint=constraint)


def test_the_device_computes_a_pass_while_the_token_is_read_and_the_mask_is_made(
    engine: MlxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = EveryThird()
    send = mx.async_eval

    def sent(*arrays: Any) -> None:
        row.happened.append("send")
        send(*arrays)

    monkeypatch.setattr(mx, "async_eval", sent)
    run(engine, [sequence(0, 8, row)])
    middle = row.happened[row.happened.index("read", 4) :][:12]
    # The draw, the next pass; then the token of that draw, and its mask.
    assert middle == ["read", "mask", "send", "send"] * 3
    assert len(row.tokens) == 8


def test_each_token_follows_its_own_mask_in_company(engine: MlxEngine) -> None:
    rows = [EveryThird(), EveryThird(), EveryThird()]
    lengths = [12, 7, 3]
    sequences = [sequence(i, lengths[i], row) for i, row in enumerate(rows)]
    together = run(engine, [*sequences, sequence(9, 10)])
    for row, length, tokens in zip(rows, lengths, together.values(), strict=False):
        assert ids(tokens) == row.tokens
        assert [token % 3 for token in row.tokens] == [i % 3 for i in range(length)]
    alone = [run(engine, [sequence(0, length, EveryThird())])[0] for length in lengths]
    assert [ids(tokens) for tokens in together.values()][:3] == [ids(one) for one in alone]
    assert ids(together[9]) == ids(run(engine, [sequence(9, 10)])[9])


def test_a_grammar_that_fails_ends_its_row_only(engine: MlxEngine) -> None:
    for number, row in enumerate([EveryThird(fails_at=4), EveryThird()]):
        engine.submit(sequence(number, 9, row))
    events = []
    while engine.has_work:
        events += engine.step()
    failures = [event for event in events if isinstance(event, SequenceFailure)]
    assert [failure.sequence_id for failure in failures] == [0]
    assert "too ambiguous" in failures[0].message
    alone = run(engine, [sequence(0, 9, EveryThird())])[0]
    found = [event for event in events if getattr(event, "token_id", None) is not None]
    assert [token.token_id for token in found if token.sequence_id == 1] == ids(alone)


def test_what_such_a_row_leaves_in_the_cache_is_what_it_has_read(engine: MlxEngine) -> None:
    first = run(engine, [sequence(0, 20, EveryThird())])[0]
    longer = Sequence(1, PROMPT + ids(first), 12, GREEDY)
    with_state = run(engine, [longer])[1]
    engine._store.clear()
    assert ids(with_state) == ids(run(engine, [longer])[1])


def test_dry_draws_the_same_in_company(engine: MlxEngine) -> None:
    alone = ids(run(engine, [Sequence(0, PROMPT, 20, DRY)])[0])
    together = run(engine, [Sequence(0, PROMPT, 20, DRY), sequence(1, 15, EveryThird())])
    assert ids(together[0]) == alone
