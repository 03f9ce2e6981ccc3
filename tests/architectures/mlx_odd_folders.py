"""Odd MLX model folders: what is done to a sound one, and what is to be said of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx

from tests.architectures.mlx_spoils import (
    CONFIG,
    INDEX,
    TOKENIZER,
    WEIGHTS,
    Spoil,
    both,
    half,
    header,
    in_shards,
    moved_away,
    replaced_by,
    weights,
    with_json,
    with_stray,
    written,
)
from tests.engines.tiny_mlx import QWEN

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
