"""Measured memory is kept by what it depends on, in a file that may break."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.catalog.catalog import ModelEntry, find_model
from jobs.contract.records import WorkerState, WorkerStatus
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.memory import ledger as ledger_module
from jobs.memory.estimate import known_memory
from jobs.memory.facts import Gpu, MachineFacts
from jobs.memory.ledger import MemoryKey, MemoryLedger, measured_bytes
from jobs.settings import Settings

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"
ENTRY = ModelEntry("demo.gguf", DEMO, "llama-cpp", DEMO.stat().st_size)
LOAD = LoadRequest("demo.gguf", "llama-cpp")
MIB = 1 << 20


def key_of(load: LoadRequest = LOAD, entry: ModelEntry = ENTRY, **settings: int) -> MemoryKey:
    return MemoryKey.of(entry, load, Settings(**settings))


def test_the_largest_figure_is_kept_for_the_next_process(tmp_path: Path) -> None:
    written = MemoryLedger(tmp_path)
    assert written.get(key_of()) is None
    for num_bytes in (100 * MIB, 300 * MIB, 200 * MIB, 0):
        written.note(key_of(), num_bytes)
    assert MemoryLedger(tmp_path).get(key_of()) == 300 * MIB


def test_a_reader_sees_what_another_process_has_noted_since(tmp_path: Path) -> None:
    writer, reader = MemoryLedger(tmp_path), MemoryLedger(tmp_path)
    assert reader.get(key_of()) is None
    writer.note(key_of(), 100 * MIB)
    assert reader.get(key_of()) == 100 * MIB


def test_growth_of_less_than_a_hundredth_is_not_written(tmp_path: Path) -> None:
    ledger = MemoryLedger(tmp_path)
    ledger.note(key_of(), 1000 * MIB)
    before = (tmp_path / "memory.json").stat().st_mtime_ns
    ledger.note(key_of(), 1001 * MIB)
    assert (tmp_path / "memory.json").stat().st_mtime_ns == before


def test_options_that_need_other_memory_have_figures_of_their_own(tmp_path: Path) -> None:
    other_file = tmp_path / "other.gguf"
    other_file.write_bytes(b"GGUF")
    keys = [
        key_of(),
        key_of(LoadRequest("demo.gguf", "llama-cpp", context_length=512)),
        key_of(LoadRequest("demo.gguf", "llama-cpp", kv_bits=8)),
        key_of(slots=3),
        key_of(entry=ModelEntry("demo.gguf", other_file, "llama-cpp", 4)),
    ]
    assert len(set(keys)) == len(keys)
    defaults = GenerationDefaults(max_tokens=7)
    assert key_of(LoadRequest("demo.gguf", "llama-cpp", defaults=defaults)) == key_of()


def test_a_changed_file_is_another_model(tmp_path: Path) -> None:
    file = tmp_path / "one.gguf"
    entry = ModelEntry("one.gguf", file, "llama-cpp", 0)
    file.write_bytes(b"1")
    before = key_of(entry=entry)
    file.write_bytes(b"22")
    assert key_of(entry=entry) != before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff\x00"])
def test_a_broken_file_counts_as_empty_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "memory.json").write_bytes(content)
    ledger = MemoryLedger(tmp_path)
    assert ledger.get(key_of()) is None
    ledger.note(key_of(), 5 * MIB)
    assert MemoryLedger(tmp_path).get(key_of()) == 5 * MIB


def test_a_folder_that_cannot_be_written_loses_nothing_in_this_process(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    ledger = MemoryLedger(blocked / "state")
    ledger.note(key_of(), 5 * MIB)
    assert ledger.get(key_of()) == 5 * MIB


def test_the_oldest_figures_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_MAX_ENTRIES", 3)
    ledger = MemoryLedger(tmp_path)
    keys = [MemoryKey(str(number)) for number in range(5)]
    for key in keys:
        ledger.note(key, MIB)
    known = [ledger.get(key) for key in keys]
    assert known == [None, None, MIB, MIB, MIB]


# The estimate of a model that has run before


def test_what_was_measured_counts_but_never_less_than_weights_and_state(tmp_path: Path) -> None:
    settings, facts, ledger = Settings(), MachineFacts(16 << 30), MemoryLedger(tmp_path)
    first = known_memory(ENTRY, LOAD, settings, ledger, facts)
    assert first.basis == "header"
    ledger.note(key_of(), 60 * MIB)
    known = known_memory(ENTRY, LOAD, settings, ledger, facts)
    assert (known.basis, known.total_bytes) == ("measured", 60 * MIB + first.cache_bytes)
    small = MemoryLedger(tmp_path / "other")
    small.note(key_of(), 1)
    least = known_memory(ENTRY, LOAD, settings, small, facts)
    assert least.total_bytes == first.weights_bytes + first.state_bytes + first.cache_bytes


def test_a_process_that_had_enough_does_not_get_more_each_time(tmp_path: Path) -> None:
    """Within its share an engine takes more cells and keeps more prompts."""
    settings, facts, ledger = Settings(), MachineFacts(16 << 30), MemoryLedger(tmp_path)
    first = known_memory(ENTRY, LOAD, settings, ledger, facts).total_bytes
    ledger.note(key_of(), first - MIB)
    assert known_memory(ENTRY, LOAD, settings, ledger, facts).total_bytes == first
    ledger.note(key_of(), 2 * first)
    assert known_memory(ENTRY, LOAD, settings, ledger, facts).total_bytes > 2 * first


def test_on_a_mac_the_mapped_file_is_added_to_the_footprint(tmp_path: Path) -> None:
    gpu = Gpu("metal", 10 << 30)
    facts = MachineFacts(16 << 30, {"llama-cpp": gpu})
    ledger = MemoryLedger(tmp_path)
    ledger.note(key_of(), 50 * MIB)
    known = known_memory(ENTRY, LOAD, Settings(), ledger, facts)
    assert known.total_bytes == 50 * MIB + known.weights_bytes + known.cache_bytes


def test_kept_prompts_are_not_a_part_of_what_is_measured() -> None:
    status = WorkerStatus(
        "0", WorkerState.READY, 1, "here", [], memory_bytes=9, prompt_cache_bytes=4
    )
    assert measured_bytes(status) == 5


def test_on_a_gpu_that_llama_cpp_tells_nothing_of_the_headers_count(tmp_path: Path) -> None:
    facts = MachineFacts(64 << 30, {"llama-cpp": Gpu("cuda", 24 << 30)})
    ledger = MemoryLedger(tmp_path)
    ledger.note(key_of(), 500 * MIB)
    assert known_memory(ENTRY, LOAD, Settings(), ledger, facts).basis == "header"


def test_what_models_toml_says_wins(tmp_path: Path) -> None:
    (tmp_path / "demo.gguf").symlink_to(DEMO)
    (tmp_path / "models.toml").write_text('["demo.gguf"]\nmemory = "6GB"\n')
    settings = Settings(models_dir=tmp_path)
    entry = find_model(settings, "demo.gguf")
    ledger = MemoryLedger(tmp_path / "state")
    ledger.note(MemoryKey.of(entry, LOAD, settings), 7 << 30)
    found = known_memory(entry, LOAD, settings, ledger, MachineFacts(16 << 30))
    assert (found.basis, found.total_bytes) == ("given", 6 * 10**9)
