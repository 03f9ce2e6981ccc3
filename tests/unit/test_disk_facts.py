"""Facts of models on disk: from the heads of both kinds of files, read again when they change."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.catalog.catalog import ModelEntry, list_models
from jobs.catalog.disk_facts import DiskFactsReader, ModelFacts
from jobs.settings import Settings
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
    facts = DiskFactsReader().read(entry)
    assert (facts.modified_at, facts.context_length, facts.architecture) == (5, 2048, "qwen3")


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
    assert DiskFactsReader().read(entry) == ModelFacts()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    reader = DiskFactsReader()
    assert reader.read(gguf(tmp_path, gguf_bytes(HEAD))).context_length == 2048
    longer = gguf_bytes({**HEAD, "qwen3.context_length": 4096, "general.name": "longer"})
    assert reader.read(gguf(tmp_path, longer)).context_length == 4096


def test_a_config_nested_without_end_names_no_length(tmp_path: Path) -> None:
    assert context_length(mlx(tmp_path, "[" * 100_000)) is None


TEMPLATE = "{% if tools %}{{ tools }}{% endif %}{{ messages }}"
DESCRIBED: Metadata = {
    **HEAD,
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.chat_template": TEMPLATE,
    "general.file_type": 15,
}


def tensors(*shapes: tuple[int, ...]) -> bytes:
    """The list of tensors that follows a header."""
    data = b""
    for number, shape in enumerate(shapes):
        name = f"t{number}".encode()
        data += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
        data += struct.pack(f"<{len(shape)}QIQ", *shape, 0, number * 32)
    return data


def test_a_gguf_file_says_all(tmp_path: Path) -> None:
    data = gguf_bytes(DESCRIBED, num_tensors=2) + tensors((10, 20), (5,))
    assert DiskFactsReader().read(gguf(tmp_path, data)) == ModelFacts(
        modified_at=int((tmp_path / "m.gguf").stat().st_mtime),
        context_length=2048,
        architecture="qwen3",
        quantization="Q4_K_M",
        num_parameters=205,
        task="generation",
        has_chat_template=True,
        has_tools=True,
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"qwen3.pooling_type": 3},
        {"qwen3.attention.causal": False},
        {"general.architecture": "bert"},
    ],
)
def test_a_gguf_encoder_embeds(tmp_path: Path, extra: Metadata) -> None:
    facts = DiskFactsReader().read(gguf(tmp_path, gguf_bytes({**HEAD, **extra})))
    assert facts.task == "embedding"
    assert facts.has_tools is not True


def test_a_projector_beside_it_tells_of_images(tmp_path: Path) -> None:
    entry = gguf(tmp_path, gguf_bytes(HEAD))
    reader = DiskFactsReader()
    assert reader.read(entry).input_kinds == ("text",)
    assert reader.read(replace(entry, projector=tmp_path)).input_kinds == ("text", "image")
    assert reader.read(entry).input_kinds == ("text",)


def safetensors(**shapes: tuple[int, ...]) -> bytes:
    """A file of empty tensors."""
    entries = {
        name: {"dtype": "odd", "shape": list(shape), "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header


CONFIG = {
    "model_type": "qwen3_vl",
    "quantization": {"bits": 4, "group_size": 32, "b": {"group_size": 64, "bits": 8}},
    "text_config": {"max_position_embeddings": 512},
    "vision_config": {"depth": 1},
}


def test_an_mlx_folder_says_all(tmp_path: Path) -> None:
    entry = mlx(tmp_path, json.dumps(CONFIG))
    (entry.path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    weights = {
        "a.weight": (8, 4), "a.scales": (8, 1), "a.biases": (8, 1), "a.bias": (8,),
        "b.weight": (2, 16), "b.scales": (2, 1), "b.biases": (2, 1), "norm.weight": (7,),
    }  # fmt: skip
    (entry.path / "model.safetensors").write_bytes(safetensors(**weights))
    assert DiskFactsReader().read(entry) == ModelFacts(
        modified_at=int((entry.path / "config.json").stat().st_mtime),
        context_length=512,
        architecture="qwen3_vl",
        quantization="4-bit",
        num_parameters=8 * 32 + 8 + 2 * 64 + 7,
        input_kinds=("text", "image"),
        task="generation",
        has_chat_template=True,
        has_tools=True,
    )


def test_the_index_of_an_mlx_folder_may_say_the_number_of_parameters(tmp_path: Path) -> None:
    entry = mlx(tmp_path, json.dumps({"model_type": "bert", "torch_dtype": "bfloat16"}))
    index = {"metadata": {"total_parameters": 123}, "weight_map": {}}
    (entry.path / "model.safetensors.index.json").write_text(json.dumps(index))
    (entry.path / "chat_template.jinja").write_text("{{ messages }}")
    facts = DiskFactsReader().read(entry)
    assert (facts.num_parameters, facts.task, facts.quantization) == (123, "embedding", "BF16")
    assert (facts.has_chat_template, facts.has_tools) == (True, False)


def test_the_demo_model_is_known_in_both_formats() -> None:
    settings = Settings(model_sources="models")
    found = {entry.name: DiskFactsReader().read(entry) for entry in list_models(settings)}
    mlx_demo, gguf_demo = found["demo"], found["demo.gguf"]
    assert mlx_demo.num_parameters == gguf_demo.num_parameters
    assert 1_000_000 < (mlx_demo.num_parameters or 0) < 3_000_000
    assert mlx_demo.context_length == gguf_demo.context_length
    assert mlx_demo.has_chat_template
    assert gguf_demo.has_chat_template


def test_facts_outlive_the_process_until_their_file_changes(tmp_path: Path) -> None:
    kept = tmp_path / "facts.json"
    entry = gguf(tmp_path, gguf_bytes(HEAD))
    [first] = DiskFactsReader(kept).read_all([entry])
    text = kept.read_text()
    kept.write_text(text.replace("qwen3", "kept"))
    [again] = DiskFactsReader(kept).read_all([entry])
    assert (first.architecture, again.architecture) == ("qwen3", "kept")
    os.utime(entry.path, (5, 5))
    assert DiskFactsReader(kept).read_all([entry])[0].architecture == "qwen3"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"known": {}, "format": 999}', '{"known": 3}'])
def test_kept_facts_that_cannot_be_read_are_read_anew(tmp_path: Path, text: str) -> None:
    kept = tmp_path / "facts.json"
    kept.write_text(text)
    [facts] = DiskFactsReader(kept).read_all([gguf(tmp_path, gguf_bytes(HEAD))])
    assert facts.context_length == 2048
    assert '"qwen3"' in kept.read_text()


def test_a_folder_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    reader = DiskFactsReader(tmp_path / "missing" / "facts.json")
    assert reader.read_all([gguf(tmp_path, gguf_bytes(HEAD))])[0].context_length == 2048


def test_one_listing_reads_for_a_limited_time_and_the_next_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "facts.json"
    entry = gguf(tmp_path, gguf_bytes(DESCRIBED))
    [first] = DiskFactsReader(kept, budget_s=-1.0).read_all([entry])
    assert (first.context_length, first.has_chat_template) == (2048, None)
    assert not kept.exists()
    assert DiskFactsReader(kept).read_all([entry])[0].has_chat_template is True
    assert DiskFactsReader(kept, budget_s=-1.0).read_all([entry])[0].has_chat_template is True
