"""The KV cache in 4 or 8 bits: the same text but for close calls, from a fraction of the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from jobs.contract.errors import InvalidRequestError
from tests.engines.mlx_demo import answers, held_out, open_demo, transcripts
from tests.engines.tiny_mlx import GREEDY, QWEN, opened, run, write_gemma, write_model, write_qwen
from workers.engines.base import EngineOptions, Sequence
from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.engine import MlxEngine
from workers.engines.mlx.load.loading import load

LONG = list(range(40, 240)) * 2


@pytest.fixture(scope="module")
def plain() -> Iterator[MlxEngine]:
    engine = open_demo()
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=[8, 4])
def bits(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def quantized(bits: int) -> Iterator[MlxEngine]:
    engine = open_demo(kv_bits=bits)
    yield engine
    engine.close()


def test_the_demo_model_says_the_same(plain: MlxEngine, quantized: MlxEngine) -> None:
    prompts = held_out(plain, every=8)
    found = zip(answers(plain, prompts), answers(quantized, prompts), strict=True)
    assert sum(a == b for a, b in found) >= 0.95 * len(prompts)


def test_there_is_one_slot(quantized: MlxEngine) -> None:
    assert quantized.info.num_slots == 1


def test_a_kept_prefix_is_reused_with_the_same_text(quantized: MlxEngine, bits: int) -> None:
    alone = answers(quantized, [LONG], 12)
    again = transcripts(quantized, [LONG], 12)[0]
    assert [again.ids] == alone
    assert again.prefills[-1].num_cached == len(LONG) - 1
    turn = LONG + again.ids + [50, 51]
    fresh = open_demo(kv_bits=bits, prompt_cache_bytes=0)
    assert answers(quantized, [turn], 12) == answers(fresh, [turn], 12)
    fresh.close()


def test_the_memory_shrinks(tmp_path: Path) -> None:
    folder, sizes = write_qwen(tmp_path / "qwen"), []
    for bits in (None, 8, 4):
        model = load(folder, QWEN, EngineOptions(kv_bits=bits), lambda fraction: None).model
        cache = library.new_cache(model)
        model(mx.zeros((1, 256), dtype=mx.uint32), cache=cache)
        sizes.append(kv.num_bytes(cache))
    # 32 values of 4 bytes; or of 1 byte and 4 bits, with two floats for all of them.
    assert sizes[1] / sizes[0] == pytest.approx((32 + 8) / 128)
    assert sizes[2] / sizes[0] == pytest.approx((16 + 8) / 128)


def test_a_sliding_window_stays_as_it_is(tmp_path: Path) -> None:
    folder = write_gemma(tmp_path / "gemma")
    engine = opened(folder, kv_bits=8)
    assert engine.info.num_slots == 1
    tokens = run(engine, [Sequence(i, [i + j for j in range(50)], 20, GREEDY) for i in range(2)])
    assert [len(found) for found in tokens.values()] == [20, 20]


@pytest.mark.parametrize(("bits", "num_slots"), [(8, 2), (4, 8), (3, None), (0, None), (16, 1)])
def test_what_cannot_be_is_refused_by_name(bits: int, num_slots: int | None) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        open_demo(kv_bits=bits, num_slots=num_slots)
    assert refusal.value.param == "kv_bits"


def test_heads_that_no_group_divides_are_refused(tmp_path: Path) -> None:
    from mlx_lm.models import qwen3

    config = QWEN | {"head_dim": 16}
    folder = write_model(tmp_path / "odd", qwen3.Model(qwen3.ModelArgs.from_dict(config)), config)
    with pytest.raises(InvalidRequestError, match="heads of \\[16\\] values") as refusal:
        opened(folder, kv_bits=8)
    assert refusal.value.param == "kv_bits"
