"""What is wrong with a model folder is said; what is right is loaded as the device likes it."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import sentencepiece
from mlx.utils import tree_flatten

from jobs.contract.errors import JobCancelledError, ModelLoadError, UnsupportedParameterError
from tests.engines.tiny_mlx import QWEN, opened, write_qwen
from workers.engines.base import EngineOptions
from workers.engines.mlx.engine import open_mlx
from workers.engines.mlx.load.loading import choose_context_length, load, to_float32


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


@pytest.fixture
def folder(qwen: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be spoiled."""
    return Path(shutil.copytree(qwen, tmp_path / "spoiled"))


def spoil_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def truncate(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


SPOILS: dict[str, tuple[Any, str]] = {
    "no folder": (shutil.rmtree, "no model folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "broken config": (lambda f: truncate(f / "config.json", 20), "config.json cannot be read"),
    "config no object": (lambda f: (f / "config.json").write_text("[]"), "JSON object"),
    "no model_type": (lambda f: spoil_config(f, model_type=None), "has no model_type"),
    "unknown type": (lambda f: spoil_config(f, model_type="nonesuch"), "nonesuch not supported"),
    "own code": (lambda f: spoil_config(f, model_file="code.py"), "contains Python code"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "truncated data": (lambda f: truncate(f / "model.safetensors", 5000), "is truncated"),
    "truncated header": (lambda f: truncate(f / "model.safetensors", 90), "truncated"),
    "other shapes": (lambda f: spoil_config(f, hidden_size=32), "cannot be loaded"),
    "odd index": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": []}'),
        "cannot be loaded",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "useless vocabulary": (
        lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"),
        "no usable tokenizer",
    ),
    "broken tokenizer": (lambda f: truncate(f / "tokenizer.json", 50), "tokenizer.json"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_a_spoiled_folder_is_refused_with_what_is_wrong(name: str, folder: Path) -> None:
    spoil, words = SPOILS[name]
    spoil(folder)
    with pytest.raises(ModelLoadError, match=words):
        opened(folder)


def sentencepiece_model() -> bytes:
    """Without changes to texts, as Llama's: bytes stand for what it does not know."""
    words = "the water of a cat dog is was and house tree größer 12 345 hello world".split()
    choice = random.Random(1)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(choice.choices(words, k=12)) for _ in range(300)]),
        model_writer=written,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return written.getvalue()


def test_a_tokenizer_model_alone_is_read_as_sentencepiece_reads_it(folder: Path) -> None:
    definition = sentencepiece_model()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(definition)
    own: Any = sentencepiece.SentencePieceProcessor(model_proto=definition)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    engine = opened(folder)
    for text in ("the cat is", "größer  12", "日本 😀", "a\nb", "</s>hi"):
        ids = engine.tokenizer.encode(text, add_special=False, parse_special=False)
        assert ids == own.encode(text)
        assert b"".join(map(engine.tokenizer.piece, ids)).decode() == f" {text}"
    engine.close()
    (folder / "tokenizer_config.json").write_text("{}")  # then the model's type decides
    with pytest.raises(ModelLoadError, match="loses the blanks; name the class as tokenizer_class"):
        opened(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match=r"weights are missing: model-2\.safetensors"):
        opened(folder)


def test_a_stale_index_does_not_refuse_complete_weights(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00005.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    opened(folder).close()


@pytest.mark.parametrize("option", ["threads", "gpu_layers"])
def test_options_that_mlx_lacks_are_refused_by_name(option: str, qwen: Path) -> None:
    with pytest.raises(UnsupportedParameterError) as refusal:
        opened(qwen, **{f"num_{option}": 2})
    assert refusal.value.param == option


def test_an_error_of_on_progress_stops_the_load_as_it_is(qwen: Path) -> None:
    def cancel(fraction: float) -> None:
        if fraction > 0.0:
            raise JobCancelledError("not wanted any more")

    with pytest.raises(JobCancelledError):
        open_mlx(qwen, EngineOptions(), cancel)


def test_progress_rises_to_one(qwen: Path) -> None:
    seen: list[float] = []
    open_mlx(qwen, EngineOptions(), seen.append)
    assert seen[0] == 0.0
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_context_length_is_the_models_own_at_most_8192_unless_asked_for() -> None:
    large = {"text_config": {"max_position_embeddings": 100_000}}
    assert choose_context_length({"max_position_embeddings": 512}, None) == 512
    assert choose_context_length(large, None) == 8192
    assert choose_context_length(large, 50_000) == 50_000
    with pytest.raises(ModelLoadError, match="100000"):
        choose_context_length(large, 100_001)


@pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="a CPU's matter")
def test_on_a_cpu_weights_are_widened_to_float32(qwen: Path) -> None:
    loaded = load(qwen, QWEN, EngineOptions(), lambda fraction: None)
    module: Any = loaded.model
    assert {w.dtype for _, w in tree_flatten(module.parameters())} == {mx.float32}


def test_widening_keeps_quantized_weights_and_widens_their_scales() -> None:
    layer = nn.Linear(64, 64, bias=False)
    layer.set_dtype(mx.float16)
    quantized = layer.to_quantized(group_size=64, bits=8)
    to_float32(quantized)
    assert quantized.weight.dtype == mx.uint32
    assert quantized.scales.dtype == quantized.biases.dtype == mx.float32
