"""Facts of models on disk: from the heads of both kinds of files, read again when they change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jobs.catalog.catalog import ModelEntry
from jobs.catalog.disk_facts import DiskFacts, DiskFactsReader
from tests.gguf_bytes import Metadata, gguf_bytes

HEAD: Metadata = {"general.architecture": "qwen3", "qwen3.context_length": 2048}


def gguf(folder: Path, data: bytes) -> ModelEntry:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return ModelEntry(path.name, path, "llama-cpp", len(data))


def mlx(folder: Path, config: str) -> ModelEntry:
    path = folder / "m"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config)
    return ModelEntry(path.name, path, "mlx", 0)


def context_length(entry: ModelEntry) -> int | None:
    return DiskFactsReader().read(entry).context_length


def test_a_gguf_files_length_is_in_its_head(tmp_path: Path) -> None:
    entry = gguf(tmp_path, gguf_bytes(HEAD))
    os.utime(entry.path, (5, 5))
    assert DiskFactsReader().read(entry) == DiskFacts(5, 2048)


def test_nothing_behind_the_length_is_read(tmp_path: Path) -> None:
    whole = gguf_bytes({**HEAD, "tokenizer.ggml.tokens": ["a"] * 1000})
    assert context_length(gguf(tmp_path, whole[: len(whole) // 2])) == 2048


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_an_mlx_folders_length_is_in_its_config(
    tmp_path: Path, config: dict[str, object], expected: int | None
) -> None:
    assert context_length(mlx(tmp_path, json.dumps(config))) == expected


@pytest.mark.parametrize("config", ["", "[]", "{", '{"text_config": 5}', "\x00"])
def test_a_broken_config_tells_nothing(tmp_path: Path, config: str) -> None:
    assert context_length(mlx(tmp_path, config)) is None


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK", gguf_bytes({})])
def test_a_broken_gguf_file_tells_nothing(tmp_path: Path, data: bytes) -> None:
    assert context_length(gguf(tmp_path, data)) is None


def test_a_file_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    entry = ModelEntry("fake", tmp_path / "fake", "fake", 0)
    assert DiskFactsReader().read(entry) == DiskFacts()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    reader = DiskFactsReader()
    assert reader.read(gguf(tmp_path, gguf_bytes(HEAD))).context_length == 2048
    longer = gguf_bytes({**HEAD, "qwen3.context_length": 4096, "general.name": "longer"})
    assert reader.read(gguf(tmp_path, longer)).context_length == 4096


def test_a_config_nested_without_end_names_no_length(tmp_path: Path) -> None:
    assert context_length(mlx(tmp_path, "[" * 100_000)) is None
