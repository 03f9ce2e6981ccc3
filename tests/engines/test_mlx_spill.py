"""Prompts on disk outlive the engine and change no token; whatever happens to their files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import cache as mlx_cache

from jobs.contract.errors import ModelLoadError
from tests.engines.driving import Transcript
from tests.engines.mlx_demo import DEMO, open_demo, transcripts
from tests.engines.tiny_mlx import opened, write_gemma
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Entry
from workers.engines.mlx.cache.spill import MIN_SPILLED, PromptSpill, pack, unpack
from workers.engines.mlx.engine import MlxEngine
from workers.engines.mlx.library import PromptCache
from workers.engines.shared import spill_file
from workers.engines.shared.spill_file import BrokenSpillError, SpillHeader
from workers.engines.shared.state_store import Stored
from workers.engines.shared.token_key import to_key

LONG = [40 + (7 * step) % 500 for step in range(600)]
OTHER = [40 + (11 * step) % 500 for step in range(400)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spilled" / "kv"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kvstate"))


def say(engine: MlxEngine, *prompts: list[int]) -> list[Transcript]:
    """What the engine says to the prompts, all at once, and then it is closed."""
    try:
        return transcripts(engine, prompts, 12)
    finally:
        engine.close()


def num_cached(transcript: Transcript) -> int:
    return transcript.prefills[-1].num_cached


@pytest.fixture(scope="module")
def uncached() -> Callable[[list[int]], list[int]]:
    def tokens(prompt: list[int]) -> list[int]:
        return say(open_demo(prompt_cache_bytes=0), prompt)[0].ids

    return tokens


def test_a_prompt_outlives_the_engine(folder: Path, uncached: Any) -> None:
    first = say(open_demo(prompt_cache_dir=folder), LONG)[0]
    turn = LONG + first.ids + [50, 51, 52]
    for prompt in (LONG, turn, [*LONG[:500], 7, 8, 9]):
        again = say(open_demo(prompt_cache_dir=folder), prompt)[0]
        assert num_cached(again) >= 500
        assert again.ids == uncached(prompt)


def test_spilled_prompts_join_a_batch(folder: Path, uncached: Any) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG, OTHER)
    prompts = [[*LONG, 60], [1, 2, 3], [*OTHER, 61], [*LONG, 62, 63]]
    found = say(open_demo(prompt_cache_dir=folder), *prompts)
    assert [t.ids for t in found] == [uncached(prompt) for prompt in prompts]
    assert [num_cached(t) > 0 for t in found] == [True, False, True, True]


def test_what_leaves_memory_is_found_on_disk(folder: Path, uncached: Any) -> None:
    engine = open_demo(prompt_cache_dir=folder, prompt_cache_bytes=2_500_000)
    texts = [transcripts(engine, [prompt], 12)[0] for prompt in (LONG, OTHER, LONG[::-1])]
    while engine._spill._spill._pending or not files(folder):  # written by another thread
        engine._spill._spill._note_written()
    again = say(engine, LONG)[0]
    assert num_cached(again) == len(LONG) - 1
    assert again.ids == texts[0].ids == uncached(LONG)


def test_only_what_is_worth_a_file_is_written_and_read(folder: Path) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG[: MIN_SPILLED - 12])
    assert len(files(folder)) == 0
    say(open_demo(prompt_cache_dir=folder), LONG)
    assert num_cached(say(open_demo(prompt_cache_dir=folder), [*LONG[:100], 5, 6])[0]) == 0


def test_a_longer_prompt_takes_the_place_of_its_beginning(folder: Path) -> None:
    prompt = LONG[:300]
    for _ in range(3):
        prompt = prompt + say(open_demo(prompt_cache_dir=folder), prompt)[0].ids + [50, 51]
        assert len(files(folder)) == 1


def test_nothing_is_written_twice(folder: Path) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG)
    before = [(file, file.stat().st_ino) for file in files(folder)]
    say(open_demo(prompt_cache_dir=folder), LONG)
    assert [(file, file.stat().st_ino) for file in files(folder)] == before


def test_the_files_are_for_their_owner_alone(folder: Path) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG)
    assert [file.stat().st_mode & 0o777 for file in files(folder)] == [0o600]
    assert folder.stat().st_mode & 0o777 == 0o700


# Models


def test_a_sliding_window_is_spilled_whole(folder: Path, tmp_path: Path) -> None:
    gemma = write_gemma(tmp_path / "gemma")
    prompt = [(7 * step) % 250 for step in range(300)]
    first = say(opened(gemma, prompt_cache_dir=folder), prompt)[0]
    turn = [*prompt, *first.ids, 5, 6]
    again = say(opened(gemma, prompt_cache_dir=folder), turn)[0]
    assert num_cached(again) >= len(prompt)
    assert again.ids == say(opened(gemma, prompt_cache_bytes=0), turn)[0].ids


@pytest.mark.parametrize("options", [{"kv_bits": 8}, {"kv_bits": 4}, {"num_draft_tokens": 3}])
def test_options_of_one_slot_spill_too(folder: Path, options: dict[str, int]) -> None:
    first = say(open_demo(prompt_cache_dir=folder, **options), LONG)[0]
    again = say(open_demo(prompt_cache_dir=folder, **options), LONG)[0]
    assert num_cached(again) == len(LONG) - 1
    assert again.ids == first.ids


def test_one_model_does_not_read_what_another_has_written(folder: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(DEMO, tmp_path / "twin"))
    say(opened(twin, prompt_cache_dir=folder), LONG)
    for engine in (
        open_demo(prompt_cache_dir=folder),
        opened(twin, prompt_cache_dir=folder, kv_bits=8),
    ):
        assert num_cached(say(engine, LONG)[0]) == 0
    os.utime(twin / "model.safetensors")
    assert num_cached(say(opened(twin, prompt_cache_dir=folder), LONG)[0]) == 0


# Broken files


def spoil(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif how == "no header":
        file.write_bytes(b"\0" * 1000)
    elif how == "another layout":
        file.write_bytes(file.read_bytes().replace(b"KVCache", b"XYCache"))


SPOILS = ["gone", "truncated", "no header", "another layout"]


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_breaks_before_the_start_is_forgotten(
    how: str, folder: Path, uncached: Any
) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG)
    broken = files(folder)[0]
    spoil(broken, how)
    found = transcripts(engine := open_demo(prompt_cache_dir=folder), [LONG], 12)[0]
    assert not broken.exists()
    engine.close()
    assert num_cached(found) == 0
    assert found.ids == uncached(LONG)
    assert num_cached(say(open_demo(prompt_cache_dir=folder), LONG)[0]) == len(LONG) - 1


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_breaks_in_use_is_computed_again(how: str, folder: Path, uncached: Any) -> None:
    say(open_demo(prompt_cache_dir=folder), LONG)
    engine = open_demo(prompt_cache_dir=folder)
    spoil(files(folder)[0], how)
    found = say(engine, LONG)[0]
    assert num_cached(found) == 0
    assert found.ids == uncached(LONG)


def test_what_a_dead_process_was_writing_is_removed(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    folder.mkdir(parents=True)
    half = folder / f".{child.pid}-abc.kvstate"
    alive = folder / f".{os.getppid()}-abc.kvstate"
    theirs = folder / "notes.txt"
    for file in (half, alive, theirs):
        file.write_text("half")
    open_demo(prompt_cache_dir=folder).close()
    assert [half.exists(), alive.exists(), theirs.exists()] == [False, True, True]


def test_a_folder_that_vanishes_costs_no_answer(folder: Path, uncached: Any) -> None:
    engine = open_demo(prompt_cache_dir=folder)
    shutil.rmtree(folder)
    assert say(engine, LONG)[0].ids == uncached(LONG)


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelLoadError, match="cannot be used") as refusal:
        open_demo(prompt_cache_dir=tmp_path / "file")
    assert refusal.value.param == "prompt_cache_dir"


# The parts


def state(num: int) -> PromptCache:
    layer = mlx_cache.KVCache()
    layer.update_and_fetch(mx.ones((1, 1, num, 8)), mx.ones((1, 1, num, 8)))
    return [layer]


def entry(start: int, num: int = 300) -> Entry:
    cache = state(num)
    key = to_key(range(start, start + num))
    return Stored("", key, cache, kv.num_bytes(cache), can_trim=True)


def test_the_least_recently_used_files_are_deleted_first(folder: Path) -> None:
    one, two, three = entry(0), entry(1000), entry(2000)
    PromptSpill(folder, "model").close([one, two])
    size = files(folder)[0].stat().st_size
    used = PromptSpill(folder, "model", max_bytes=int(2.5 * size))
    for file in files(folder):
        os.utime(file, (1, 1))
    match = used.find(one.key, 300, 0)
    assert match is not None
    match.take()
    used.close([three])
    left = PromptSpill(folder, "model")
    assert [left.find(e.key, 300, 0) is not None for e in (one, two, three)] == [True, False, True]
    left.close([])


def test_a_state_beyond_the_bound_is_not_written(folder: Path) -> None:
    PromptSpill(folder, "model", max_bytes=1000).close([entry(0)])
    assert files(folder) == []


def test_a_short_gain_is_not_worth_reading(folder: Path) -> None:
    PromptSpill(folder, "model").close([entry(0, 700)])
    spill = PromptSpill(folder, "model")
    key = to_key(range(700))
    for num_tokens, is_worth_it in ((0, True), (700 - MIN_SPILLED, True), (600, False)):
        assert (spill.find(key, 700, num_tokens) is not None) == is_worth_it
    found = spill.find(key, 400, 0)
    assert found is not None
    assert found.num_tokens == 400
    assert kv.arrays(found.take())[0].shape[2] == 400
    spill.close([])


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_every_kind_of_state_comes_back_as_it_was(dtype: mx.Dtype, tmp_path: Path) -> None:
    values = mx.random.normal((1, 2, 40, 64)).astype(dtype)
    layers: list[Any] = [mlx_cache.KVCache(), mlx_cache.QuantizedKVCache(), mlx_cache.KVCache()]
    layers += [mlx_cache.RotatingKVCache(16, keep=4), mlx_cache.CacheList(mlx_cache.KVCache())]
    for layer in [*layers[:2], layers[3], layers[4].caches[0]]:
        layer.update_and_fetch(values, values)
    states = mlx_cache.ArraysCache(2)
    states[1] = values
    cache = [*layers, states]
    path, header = tmp_path / "one.kvstate", SpillHeader("model", to_key([1, 2]), False)
    packed = pack(cache)
    assert packed is not None
    spill_file.write(path, header, packed)
    assert spill_file.read_header(path) == header
    again = unpack(spill_file.read(path))
    assert [type(layer) for layer in again] == [type(layer) for layer in cache]
    for one, other in zip(kv.arrays(cache), kv.arrays(again), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(np.array(one.astype(mx.float32)), np.array(other.astype(mx.float32)))


def test_other_files_are_not_taken_for_states(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.zeros(3)})
    for read in (spill_file.read_header, spill_file.read):
        with pytest.raises(BrokenSpillError):
            read(path)
