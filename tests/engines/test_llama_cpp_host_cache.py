"""Prefixes that left the pool come back, from memory and from disk, and change no token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.make_model import make_adapter
from scripts.modelfiles.shape import Shape
from tests.engines.driving import chat, run_one, sequence
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.cache.prefixes import ROWS_PER_COPY
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


def opened(**options: object) -> LlamaCppEngine:
    return open_llama_cpp(DEMO, EngineOptions(**options), lambda fraction: None)


@pytest.fixture(scope="module")
def uncached() -> Iterator[LlamaCppEngine]:
    engine = opened(prompt_cache_bytes=0)
    yield engine
    engine.close()


def history(engine: LlamaCppEngine) -> list[int]:
    """A chat of some length."""
    return chat(engine, "Hello! What is 3 + 4? Count from 1 to 9. " * 12)


def question(engine: LlamaCppEngine) -> list[int]:
    return [*history(engine), *chat(engine, "What is 2 + 5?")]


def test_what_left_the_pool_comes_back_from_memory(uncached: LlamaCppEngine) -> None:
    engine = opened()
    run_one(engine, history(engine))
    engine._prefixes.evict_all()
    assert engine._memory.num_free == engine._memory.num_cells
    transcript = run_one(engine, question(engine), 20)
    assert transcript.prefills[-1].num_cached >= len(history(engine))
    assert transcript.ids == run_one(uncached, question(engine), 20).ids
    engine.close()


def test_what_is_in_the_way_of_a_lone_sequence_leaves_the_pool(uncached: LlamaCppEngine) -> None:
    engine = opened()
    run_one(engine, history(engine))
    run_one(engine, chat(engine, "Count down from 9 to 1."), 4)
    assert all(len(entry.tokens) < len(history(engine)) for entry in engine._prefixes.entries)
    transcript = run_one(engine, question(engine), 20)
    assert transcript.prefills[-1].num_cached >= len(history(engine))
    assert transcript.ids == run_one(uncached, question(engine), 20).ids
    engine.close()


@pytest.mark.parametrize(("num_starts", "is_there"), [(1, True), (6, False)])
def test_beside_others_it_leaves_when_it_has_cost_enough(num_starts: int, is_there: bool) -> None:
    engine = opened()
    engine.submit(sequence(chat(engine, "Tell me a story."), 60))
    engine.step()
    engine.submit(sequence(history(engine), 1))
    while len(engine._prefixes) == 0:
        engine.step()
    for number in range(num_starts):
        engine.submit(sequence(chat(engine, f"What is {number} + 1?"), ROWS_PER_COPY // 4))
    engine.step()
    assert (len(engine._prefixes) == 1) == is_there
    engine.close()


def test_a_restart_keeps_what_is_on_disk(tmp_path: Path, uncached: LlamaCppEngine) -> None:
    first = opened(prompt_cache_dir=tmp_path)
    run_one(first, history(first))
    first.close()
    second = opened(prompt_cache_dir=tmp_path)
    transcript = run_one(second, question(second), 20)
    assert transcript.prefills[-1].num_cached >= len(history(second))
    assert transcript.ids == run_one(uncached, question(second), 20).ids
    second.close()


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = opened()
    run_one(engine, history(engine))
    engine.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "turned", "other", "header"])
def test_a_damaged_file_is_removed_and_read_anew(
    tmp_path: Path, uncached: LlamaCppEngine, damage: str
) -> None:
    first = opened(prompt_cache_dir=tmp_path)
    run_one(first, history(first))
    first.close()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "turned":
        data[-5000] ^= 0xFF
    elif damage == "header":
        data[:20] = b"x" * 20
    else:
        (tmp_path / "old.part").write_bytes(b"half")
    path.write_bytes(data)
    second = opened(prompt_cache_dir=tmp_path)
    transcript = run_one(second, question(second), 20)
    assert transcript.ids == run_one(uncached, question(second), 20).ids
    assert (transcript.prefills[-1].num_cached > 0) == (damage == "other")
    assert not list(tmp_path.glob("*.part"))
    second.close()


def test_another_cache_type_reads_anew(tmp_path: Path) -> None:
    first = opened(prompt_cache_dir=tmp_path)
    run_one(first, history(first))
    first.close()
    second = opened(prompt_cache_dir=tmp_path, kv_bits=8)
    assert run_one(second, question(second), 2).prefills[-1].num_cached == 0
    second.close()


def test_an_adapter_that_was_changed_reads_anew(tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    shape = Shape.from_config(DEMO.parent / "demo" / "config.json")
    make_adapter(adapters / "tuned", shape, scale=4.0, seed=1, mlx=False)
    options = {"prompt_cache_dir": tmp_path / "kv", "adapters_dir": adapters, "adapter": "tuned"}
    first = opened(**options)
    run_one(first, history(first))
    first.close()
    for is_changed in (False, True):
        if is_changed:
            os.utime(adapters / "tuned.gguf", (1, 1))
        second = opened(**options)
        cached = run_one(second, question(second), 2).prefills[-1].num_cached
        assert (cached == 0) == is_changed
        second.close()


def test_what_memory_has_no_room_for_goes_to_disk(tmp_path: Path) -> None:
    engine = opened(prompt_cache_dir=tmp_path, prompt_cache_bytes=1_000_000)
    texts = [chat(engine, f"{word} " * 60) for word in ("one", "two", "three", "four", "five")]
    for prompt in texts:
        run_one(engine, prompt, 2)
    engine.close()
    again = opened(prompt_cache_dir=tmp_path, prompt_cache_bytes=1_000_000)
    for prompt in texts:
        assert run_one(again, [*prompt, 40], 2).prefills[-1].num_cached > 0
    again.close()


def test_one_that_had_to_leave_after_it_was_found_is_not_there(tmp_path: Path) -> None:
    first = opened(prompt_cache_dir=tmp_path)
    run_one(first, history(first))
    first.close()
    engine = opened(prompt_cache_dir=tmp_path)
    host_cache = engine._host_cache
    assert host_cache is not None
    found, _ = host_cache.find(np.asarray(history(engine), np.int32), None)
    assert found is not None
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert host_cache.restore(found) is None
    engine.close()
