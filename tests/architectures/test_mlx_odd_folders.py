"""Two hundred odd model folders: each is loaded rightly, or refused with what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    ModelLoadError,
)
from tests.architectures.mlx_reference import prompt_of, texts
from tests.engines.tiny_mlx import QWEN, opened, write_qwen

pytestmark = pytest.mark.real_engine

Spoil = Callable[[Path], Any]
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = "model.safetensors.index.json"
# A message without words: an exception's repr, or a traceback.
BARE = re.compile(r"(Error|Exception)\(|Traceback|^'\w+'$|: '\w+'$")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen(tmp_path_factory.mktemp("mlx") / "qwen")


@pytest.fixture(scope="module")
def text(qwen: Path) -> list[int]:
    return said(qwen)


@pytest.fixture
def folder(qwen: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be spoiled."""
    return Path(shutil.copytree(qwen, tmp_path / "spoiled"))


def said(folder: Path) -> list[int]:
    engine = opened(folder, num_slots=1)
    try:
        return texts(engine, [prompt_of(1, 12)], 4)[0]
    finally:
        engine.close()


def written(name: str, content: str | bytes) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def with_json(name: str, **changes: Any) -> Spoil:
    """Changes some fields of a JSON file; ``...`` removes one."""

    def spoil(folder: Path) -> None:
        file = folder / name
        fields = (json.loads(file.read_text()) if file.exists() else {}) | changes
        file.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))

    return spoil


def replaced_by(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Changes the header of the weights."""

    def spoil(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + size])
        change(entries)
        text = json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return spoil


def weights(change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> Spoil:
    def spoil(folder: Path) -> None:
        changed = change(dict(mx.load(str(folder / WEIGHTS))))
        (folder / WEIGHTS).unlink()
        mx.save_safetensors(str(folder / WEIGHTS), changed)

    return spoil


def in_shards(names: tuple[str, str], indexed: tuple[str, str]) -> Spoil:
    """The weights in two files, and an index that names two."""

    def spoil(folder: Path) -> None:
        tensors = sorted(mx.load(str(folder / WEIGHTS)).items())
        (folder / WEIGHTS).unlink()
        parts = dict(tensors[::2]), dict(tensors[1::2])
        for name, part in zip(names, parts, strict=True):
            mx.save_safetensors(str(folder / name), part)
        places = {n: place for place, part in zip(indexed, parts, strict=True) for n in part}
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))

    return spoil


def with_stray(name: str) -> Spoil:
    """An index, and beside what it names other weights under the same names."""

    def spoil(folder: Path) -> None:
        tensors = dict(mx.load(str(folder / WEIGHTS)))
        mx.save_safetensors(str(folder / name), {n: 2 * t for n, t in tensors.items()})
        places = dict.fromkeys(tensors, WEIGHTS)
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def half(name: str, part: float) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * part)])

    return spoil


def moved_away(folder: Path) -> None:
    """The weights are a link, as in a cache of downloads."""
    (folder / WEIGHTS).rename(folder.parent / "blob")
    (folder / WEIGHTS).symlink_to(folder.parent / "blob")


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = ("weights-a.safetensors", "weights-b.safetensors")
TEMPLATE = "{{ messages[0].content }}"
JSON_FILES = (
    CONFIG,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TOKENIZER,
    INDEX,
    "1_Pooling/config.json",
)
# Loaded, and the text is the one of the folder as it was.
WORKS: dict[str, Spoil] = {
    "as it is": lambda folder: None,
    "no tokenizer_config": lambda f: (f / "tokenizer_config.json").unlink(),
    "no end token in the configuration": with_json(CONFIG, eos_token_id=...),
    "several end tokens": with_json(CONFIG, eos_token_id=[256, 257, 258]),
    "end tokens outside the vocabulary": with_json(CONFIG, eos_token_id=[256, 9999]),
    "end token in generation_config": with_json("generation_config.json", eos_token_id=257),
    "no template": with_json("tokenizer_config.json", chat_template=...),
    "template in its own file": written("chat_template.jinja", TEMPLATE),
    "template in a JSON file": with_json("chat_template.json", chat_template=TEMPLATE),
    "named templates": with_json(
        "tokenizer_config.json", chat_template=[{"name": "default", "template": TEMPLATE}]
    ),
    "empty template": with_json("tokenizer_config.json", chat_template=""),
    "tokens as objects": with_json("tokenizer_config.json", eos_token={"content": "<|end|>"}),
    "tokens as numbers": with_json("tokenizer_config.json", eos_token=256),
    "unknown fields": with_json(CONFIG, nonesuch={"a": [1]}, auto_map={"AutoModel": "a.py"}),
    "python beside it": written("modeling.py", "raise SystemExit"),
    "other weights beside it": written("pytorch_model.bin", b"\0" * 100),
    "hidden files": written("._model.safetensors", b"\0" * 100),
    "empty index": written(INDEX, "{}"),
    "index of nothing": written(INDEX, '{"weight_map": {}}'),
    "shards": in_shards(SHARDS, SHARDS),
    "shards under other names": in_shards(
        ("a.safetensors", "b.safetensors"), ("a.safetensors", "b.safetensors")
    ),
    "stale index, complete shards": in_shards(SHARDS, ("model-1.safetensors", SHARDS[1])),
    "stray weights": with_stray("model-extra.safetensors"),
    "stray weights of another name": with_stray("consolidated.safetensors"),
    "half a stray file": both(with_stray("model-x.safetensors"), half("model-x.safetensors", 0.5)),
    "links to files": moved_away,
    "float32 weights": weights(lambda w: {n: t.astype(mx.float32) for n, t in w.items()}),
    "a folder in a folder": lambda f: (f / "original").mkdir(),
    "context of no sense": with_json(CONFIG, max_position_embeddings="many"),
    "negative context": with_json(CONFIG, max_position_embeddings=-1),
    "empty text_config": with_json(CONFIG, text_config=None),
    "not quantized": with_json(CONFIG, quantization=None),
}
# Refused, with these words.
REFUSED: dict[str, tuple[Spoil, str]] = {
    "empty": (both(shutil.rmtree, Path.mkdir), "spoiled has no config.json"),
    "a file": (both(shutil.rmtree, Path.touch), "no model folder spoiled"),
    "nothing": (shutil.rmtree, "no model folder spoiled"),
    "no tokenizer": (lambda f: (f / TOKENIZER).unlink(), "has no tokenizer.json"),
    "tokenizer.model that is none": (
        replaced_by(TOKENIZER, lambda f: f.with_name("tokenizer.model").write_bytes(b"x" * 50)),
        "no usable tokenizer",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no weights"),
    "a folder as weights": (replaced_by(WEIGHTS, Path.mkdir), "model.safetensors is not a file"),
    "a pipe as weights": (replaced_by(WEIGHTS, os.mkfifo), "model.safetensors is not a file"),
    "a pipe as configuration": (replaced_by(CONFIG, os.mkfifo), "has no config.json"),
    "a pipe as tokenizer": (replaced_by(TOKENIZER, os.mkfifo), "has no tokenizer.json"),
    "a link to nothing": (
        replaced_by(WEIGHTS, lambda f: f.symlink_to("gone")),
        "model.safetensors is not a file",
    ),
    "a link to itself": (
        replaced_by(WEIGHTS, lambda f: f.symlink_to(f)),
        "model.safetensors is not a file",
    ),
    "a missing shard": (
        both(in_shards(SHARDS, SHARDS), lambda f: (f / SHARDS[1]).unlink()),
        f"weights are missing: {SHARDS[1]}",
    ),
    "half a shard": (
        both(in_shards(SHARDS, SHARDS), half(SHARDS[0], 0.7)),
        f"{SHARDS[0]} is truncated",
    ),
    "an index that leaves the folder": (
        written(INDEX, '{"weight_map": {"a": "../model.safetensors"}}'),
        "weight_map of model.safetensors.index.json",
    ),
    "two versions without an index": (
        both(with_stray("model-2.safetensors"), lambda f: (f / INDEX).unlink()),
        "model-2.safetensors and model.safetensors both have",
    ),
    "an unknown type": (with_json(CONFIG, model_type="nonesuch"), "nonesuch not supported"),
    "a module that is no model": (with_json(CONFIG, model_type="cache"), "do not fit"),
    "no type": (with_json(CONFIG, model_type=...), "config.json of spoiled has no model_type"),
    "own code": (with_json(CONFIG, model_file="x.py"), "contains Python code"),
    "a billion layers": (with_json(CONFIG, num_hidden_layers=10**9), "num_hidden_layers"),
    "too many layers": (with_json(CONFIG, num_hidden_layers=3), "Missing"),
    "too few layers": (with_json(CONFIG, num_hidden_layers=1), "not in model"),
    "a missing size": (with_json(CONFIG, hidden_size=...), "config.json lacks hidden_size"),
    "another size": (with_json(CONFIG, hidden_size=32), "shape"),
    "quantized without sizes": (with_json(CONFIG, quantization={}), "'group_size' is missing"),
    "quantized without bits": (
        with_json(CONFIG, quantization={"group_size": 64}),
        "'bits' is missing",
    ),
    "text_config no object": (with_json(CONFIG, text_config=[1]), "text_config in config.json"),
    "end token as text": (
        with_json(CONFIG, eos_token_id="<|end|>"),
        "eos_token_id in config.json",
    ),
    "end tokens as texts": (
        with_json("generation_config.json", eos_token_id=["a"]),
        "eos_token_id in generation_config.json",
    ),
    "a number as template": (
        with_json("tokenizer_config.json", chat_template=7),
        "chat_template is neither",
    ),
    "templates without names": (
        with_json("tokenizer_config.json", chat_template=[{"template": "x"}]),
        "chat_template is neither",
    ),
    "a template that is no text": (
        written("chat_template.jinja", b"\xff\xfe\xfa"),
        "chat_template.jinja cannot be read",
    ),
    "a missing tensor": (
        weights(lambda w: {n: t for n, t in w.items() if "q_proj" not in n}),
        "q_proj",
    ),
    "one tensor too many": (weights(lambda w: w | {"more": mx.zeros(1)}), "more"),
    "a tensor of another shape": (
        weights(lambda w: w | {"model.norm.weight": mx.zeros(3)}),
        "model.norm.weight",
    ),
    "integers as weights": (
        weights(lambda w: {n: mx.zeros(t.shape, dtype=mx.int8) for n, t in w.items()}),
        "int8",
    ),
    "a header that lies": (
        header(lambda h: h["model.norm.weight"].update(shape=[1 << 20])),
        "broken safetensors header",
    ),
    "offsets that go backwards": (
        header(lambda h: h["model.norm.weight"].update(data_offsets=[9, 3])),
        "broken safetensors header",
    ),
    "negative offsets": (
        header(lambda h: h["model.norm.weight"].update(data_offsets=[-128, 0])),
        "broken safetensors header",
    ),
    "an unknown number type": (
        header(lambda h: h["model.norm.weight"].update(dtype="F7")),
        "spoiled",
    ),
    "an empty vocabulary": (
        with_json(TOKENIZER, model={"type": "BPE", "vocab": {}, "merges": []}),
        "vocabulary of tokenizer.* is empty",
    ),
    "an unknown pooling": (
        both(
            lambda f: (f / "1_Pooling").mkdir(),
            with_json("1_Pooling/config.json", pooling_mode_max_tokens=True),
        ),
        "max_tokens",
    ),
}
# Either way is right, but it must be one of the two.
ODD_CONTENTS: dict[str, str | bytes] = {
    "empty": "",
    "half": '{"a": [1, 2',
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "no UTF-8": b"\xff\xfe\x00{",
    "a BOM": b"\xef\xbb\xbf{}",
    "deep": "[" * 100_000,
    "an empty object": "{}",
}
ODD_VALUES: tuple[Any, ...] = (None, "text", -1, 0, 1.5, [], {}, 10**12, True)
FIELDS = [*(name for name in QWEN if name not in ("model_type", "eos_token_id")), "quantization"]
EITHER: dict[str, Spoil] = {
    **{
        f"{name} is {what}": both(
            lambda f: (f / "1_Pooling").mkdir(exist_ok=True), written(name, content)
        )
        for name in JSON_FILES
        for what, content in ODD_CONTENTS.items()
    },
    **{
        f"{field} is {value!r}": with_json(CONFIG, **{field: value})
        for field in FIELDS
        for value in ODD_VALUES
    },
    **{f"{part:.0%} of the weights": half(WEIGHTS, part) for part in (0, 0.01, 0.1, 0.5, 0.99)},
    **{f"{part:.0%} of the tokenizer": half(TOKENIZER, part) for part in (0.1, 0.5, 0.99)},
}


def test_there_are_two_hundred() -> None:
    assert len(WORKS) + len(REFUSED) + len(EITHER) >= 200


@pytest.mark.parametrize("name", WORKS)
def test_a_folder_that_is_only_unusual_says_the_same(
    name: str, folder: Path, text: list[int]
) -> None:
    WORKS[name](folder)
    assert said(folder) == text


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_folder_is_refused_with_what_is_wrong(name: str, folder: Path) -> None:
    spoil, words = REFUSED[name]
    spoil(folder)
    with pytest.raises(ModelLoadError) as refusal:
        opened(folder)
    assert words in refusal.value.message
    assert not BARE.search(refusal.value.message)


@pytest.mark.parametrize("name", EITHER)
def test_a_spoiled_folder_works_or_is_refused_in_words(name: str, folder: Path) -> None:
    EITHER[name](folder)
    refusal = refusal_of(folder)
    if refusal is not None:
        assert re.search(r"spoiled|json|safetensors|tokenizer", refusal)
        assert not BARE.search(refusal)


def refusal_of(folder: Path) -> str | None:
    try:
        assert len(said(folder)) == 4
    except ContextLengthExceededError:
        return None  # loaded, with a context shorter than the prompt
    except (ModelLoadError, InvalidRequestError) as refusal:
        return refusal.message
    return None


@pytest.mark.parametrize("place", [None, "text_config"])
def test_a_quantization_is_found_in_the_text_configuration_too(
    place: str | None, folder: Path
) -> None:
    settings = {"group_size": 32, "bits": 8}

    def quantized(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        made: dict[str, mx.array] = {}
        for name, tensor in tensors.items():
            if tensor.ndim < 2:
                made[name] = tensor
                continue
            stem = name.removesuffix(".weight")
            parts = mx.quantize(tensor, **settings)
            names = (name, f"{stem}.scales", f"{stem}.biases")
            made |= dict(zip(names, parts, strict=True))
        return made

    weights(quantized)(folder)
    nested = {"quantization": settings}
    with_json(CONFIG, **(nested if place is None else {place: nested}))(folder)
    engine = opened(folder, num_slots=1)
    assert engine.info.quantization == "8-bit, groups of 32"
    assert len(texts(engine, [prompt_of(1, 12)], 4)[0]) == 4
    engine.close()
