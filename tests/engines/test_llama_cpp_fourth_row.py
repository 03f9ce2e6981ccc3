"""A row of no use beside three others: it changes no token and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.gguf_header import read_gguf_header
from tests.engines.driving import long_prompt, run, run_one, sequence
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import lib
from workers.engines.llama_cpp.cache.pool import Pool
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp
from workers.engines.llama_cpp.fourth_row import is_fourth_row_welcome, num_missing_rows

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
_REPACKING = b"CPU : AVX2 = 1 | REPACK = 1 | "


@pytest.fixture
def engine() -> Iterator[LlamaCppEngine]:
    opened = open_llama_cpp(DEMO, EngineOptions(prompt_cache_bytes=0), lambda fraction: None)
    opened._memory.has_fours = True
    yield opened
    opened.close()


@pytest.fixture
def rows(engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of ``llama_decode`` got."""
    counts: list[int] = []
    decode = lib.llama_decode

    def counting(context: Any, batch: Any) -> int:
        counts.append(batch.n_tokens)
        return int(decode(context, batch))

    monkeypatch.setattr(lib, "llama_decode", counting)
    return counts


def test_of_three_left_over_rows_one_is_missing() -> None:
    assert [num_missing_rows(n) for n in range(1, 13)] == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_tokens_are_the_same_with_it(engine: LlamaCppEngine, rows: list[int], count: int) -> None:
    prompts = [long_prompt(engine, 20 + i) for i in range(count)]
    alone = [run_one(engine, prompt, 30).ids for prompt in prompts]
    rows.clear()
    together = run(engine, [sequence(prompt, 30) for prompt in prompts])
    assert [one.ids for one in together] == alone
    full = count + num_missing_rows(count)
    assert rows.count(full) >= 20, "all decode together most of the time"
    assert engine._memory.num_free == engine._memory.num_cells


def test_a_prompt_gets_one_too(engine: LlamaCppEngine, rows: list[int]) -> None:
    prompt = long_prompt(engine, 200)
    for length in (90, 91, 92):
        rows.clear()
        engine._memory.has_fours = False
        plain = run_one(engine, prompt[:length], 10).ids
        engine._memory.has_fours = True
        assert run_one(engine, prompt[:length], 10).ids == plain
        num_read = sum(count for count in rows if count > 1)
        assert num_read == 2 * length + num_missing_rows(length)


def test_it_leaves_no_cell_behind(engine: LlamaCppEngine, rows: list[int]) -> None:
    run(engine, [sequence(long_prompt(engine, 20), 40) for _ in range(3)])
    assert 4 in rows
    memory = engine._memory
    assert isinstance(memory, Pool)
    assert lib.llama_memory_seq_pos_max(memory._memory, memory._gangway) == -1


def test_a_pool_that_is_full_has_no_place_for_it(rows: list[int]) -> None:
    options = EngineOptions(prompt_cache_bytes=0, num_slots=3, context_length=64)
    small = open_llama_cpp(DEMO, options, lambda fraction: None)
    small._memory.has_fours = True
    small._memory.book.extend(200, 3)  # as if somebody held them: the last call finds three free
    prompts = [long_prompt(small, 16)[:16] for _ in range(3)]
    ended = run(small, [sequence(prompt, 48) for prompt in prompts])
    assert [len(one.ids) for one in ended] == [48] * 3
    assert rows[-2:] == [4, 3]
    small.close()


@pytest.mark.parametrize(
    ("file_type", "experts", "system", "is_welcome"),
    [
        (2, 0, _REPACKING, True),
        (15, 0, b"CPU : NEON = 1 | REPACK = 1 | ", True),
        (7, 0, _REPACKING, False),
        (2, 8, _REPACKING, False),
        (2, 0, b"CPU : AVX2 = 1 | ", False),
        (2, 0, b"CPU : REPACK = 1 | ", False),
    ],
)
def test_which_models_want_it(
    file_type: int,
    experts: int,
    system: bytes,
    is_welcome: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lib, "llama_print_system_info", lambda: system)
    found = read_gguf_header(DEMO)
    facts = {"general.file_type": file_type, f"{found.architecture}.expert_count": experts}
    header = replace(found, metadata={**found.metadata, **facts})
    assert is_fourth_row_welcome(header) is is_welcome
