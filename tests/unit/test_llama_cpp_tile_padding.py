"""When a short piece of a prompt is sooner read with rows of no use behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cpu.tile_padding import TilePadding
from workers.engines.llama_cpp.cpu.tuning import tune


@pytest.fixture(autouse=True)
def half_billion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of the model that the table in ``tile_padding`` is of."""
    facts = {"n_layer": 28, "n_head": 16, "n_embd": 1024, "n_params": 474_000_000}
    for name, value in facts.items():
        monkeypatch.setattr(lib, f"llama_model_{name}", lambda _, value=value: value)


def tiles(*, key_length: int | None = 128) -> TilePadding:
    header: Any = SimpleNamespace(architecture="qwen3", count=lambda _: key_length)
    return TilePadding(cast("GgufHeader", header), None, 64)


@pytest.mark.parametrize(
    ("num_before", "least"),
    [(0, 65), (200, 49), (500, 36), (1000, 27), (1500, 23), (3000, 18)],
)
def test_the_longer_the_text_the_fewer_rows_are_worth_a_tile(num_before: int, least: int) -> None:
    first = next((n for n in range(1, 65) if tiles().num_missing(n, num_before)), 65)
    assert abs(first - least) <= 1


def test_they_make_a_whole_tile() -> None:
    assert [tiles().num_missing(n, 3000) for n in (40, 63, 64, 65, 200)] == [24, 1, 0, 0, 0]


def test_a_memory_that_cannot_forget_them_gets_none() -> None:
    header = cast("GgufHeader", SimpleNamespace(architecture="qwen3", count=lambda _: 128))
    assert tune(header, None, can_forget=True).padding is not None
    tuning = tune(header, None, can_forget=False)
    assert (tuning.padding, tuning.abort) == (None, None)


def test_a_larger_model_needs_a_longer_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lib, "llama_model_n_params", lambda _: 4_000_000_000)
    assert tiles().num_missing(40, 500) == 0
    assert tiles().num_missing(60, 3000) == 4


def test_heads_of_the_usual_length() -> None:
    assert tiles(key_length=None).num_missing(30, 1000) == 0
    assert tiles(key_length=None).num_missing(40, 1000) == 24
