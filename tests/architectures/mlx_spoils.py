"""Ways to change a small MLX model folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

Spoil = Callable[[Path], Any]
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = "model.safetensors.index.json"


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
