"""Checks a model folder before a library reads it, for early and clear errors.

MLX maps weights lazily, so a truncated file would crash the process instead of failing the load.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.contract.errors import ModelLoadError

Json = dict[str, Any]

_LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header, little-endian
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_json(path: Path) -> Json:
    """The JSON object in ``path``; ``ModelLoadError`` if it is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path.name} does not contain a JSON object")
    return value


def read_optional_json(path: Path) -> Json:
    """As ``read_json``, but empty if the file does not exist."""
    return read_json(path) if path.is_file() else {}


def check_folder(path: Path, *, is_remote_code_trusted: bool) -> Json:
    """The configuration of the model folder ``path``; ``ModelLoadError`` if it cannot be loaded."""
    if not path.is_dir():
        raise ModelLoadError(f"There is no model folder {path.name}")
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path.name} has no config.json: it is not an MLX model folder")
    config = read_json(path / "config.json")
    _check_config(path, config, is_remote_code_trusted)
    _check_weights(path)
    return config


def _check_config(path: Path, config: Json, is_remote_code_trusted: bool) -> None:
    if not isinstance(config.get("model_type"), str):
        raise ModelLoadError(f"config.json of {path.name} has no model_type")
    if "model_file" in config and not is_remote_code_trusted:
        raise ModelLoadError(
            f"{path.name} contains Python code (model_file): refused unless remote code is trusted"
        )


def _check_weights(path: Path) -> None:
    # The same pattern as in mlx_lm.utils.load_model.
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise ModelLoadError(f"{path.name} has no weights (model*.safetensors)")
    tensors = {name for file in files for name in read_safetensors_header(file)}
    _check_shards(path, tensors)


def _check_shards(path: Path, tensors: set[str]) -> None:
    """Raise ``ModelLoadError`` if a file is missing with weights that are not among ``tensors``.

    Merged files often keep the index of the files that they were made of.
    """
    index = read_optional_json(path / "model.safetensors.index.json")
    files = {file for name, file in index.get("weight_map", {}).items() if name not in tensors}
    missing = sorted(file for file in files if not (path / file).is_file())
    if missing:
        raise ModelLoadError(f"{path.name}: weights are missing: {', '.join(missing)}")


def check_safetensors(file: Path) -> None:
    """Raise ``ModelLoadError`` unless the file is as long as its header says."""
    read_safetensors_header(file)


def read_safetensors_header(file: Path) -> Json:
    """The header of a safetensors file; ``ModelLoadError`` if the file is truncated."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        num_header = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if num_header > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ModelLoadError(f"{file.name} is not a safetensors file, or it is truncated")
        header = stream.read(num_header)
    entries, num_data = _parse_header(file.name, header)
    if size < _LENGTH_BYTES + num_header + num_data:
        raise ModelLoadError(f"{file.name} is truncated: it has only {size} bytes")
    return entries


def _parse_header(name: str, header: bytes) -> tuple[Json, int]:
    """The entries, and the length in bytes of the data that they describe."""
    try:
        entries: Json = json.loads(header)
        ends = [e["data_offsets"][1] for key, e in entries.items() if key != "__metadata__"]
        return entries, max(map(int, ends), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelLoadError(f"{name} has a broken safetensors header") from error
