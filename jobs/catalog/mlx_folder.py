"""Checks a model folder before a library reads it, for early and clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.contract.errors import ModelLoadError

Json = dict[str, Any]

# Of layers and of experts: mlx_lm makes an object for each, and would go on for ever.
_MAX_PARTS = 10_000
_COUNTED = ("layer", "expert")


def read_text(path: Path) -> str:
    """The text in ``path``; ``ModelLoadError`` if it is missing or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path.name} cannot be read: {error}") from error


def read_json(path: Path) -> Json:
    """The JSON object in ``path``; ``ModelLoadError`` if it is missing or broken."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
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
    return config


def _check_config(path: Path, config: Json, is_remote_code_trusted: bool) -> None:
    if not isinstance(config.get("model_type"), str):
        raise ModelLoadError(f"config.json of {path.name} has no model_type")
    if "model_file" in config and not is_remote_code_trusted:
        raise ModelLoadError(
            f"{path.name} contains Python code (model_file): refused unless remote code is trusted"
        )
    inner = config.get("text_config") or {}
    if not isinstance(inner, dict):
        raise ModelLoadError(f"text_config in config.json of {path.name} is not an object")
    for name, value in [*config.items(), *inner.items()]:
        is_count = isinstance(value, int) and any(part in name for part in _COUNTED)
        if is_count and value > _MAX_PARTS:
            raise ModelLoadError(f"config.json of {path.name} has {value} as its {name}")
