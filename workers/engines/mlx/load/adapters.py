"""LoRA adapters: folders in mlx_lm's format, applied to a model at load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from jobs.catalog.mlx_folder import read_json
from jobs.catalog.mlx_weights import check_safetensors
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.engines.mlx import library

FIELD = "adapter_name"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapters.safetensors"
_LOW_RANKS = ("lora_a", "lora_b", "m")  # what mlx_lm adds to a layer, ``m`` for DoRA
_MAX_REASON = 500  # characters; the library lists every tensor that does not fit


def apply_adapter(module: nn.Module, path: Path) -> None:
    """Apply the adapter in ``path`` to the model; its weights are not read yet.

    Raises ``InvalidRequestError`` with the reason if the adapter does not fit.
    """
    try:
        is_full = _check_files(path)
        library.load_adapter(module, path)
        _check_weights(module, path / _WEIGHTS, is_full=is_full)
    except Exception as error:  # mlx_lm raises anything; the first line contains a path
        reason = str(error).partition("\n")[2] or str(error) or repr(error)
        message = f"the adapter {path.name!r} cannot be used: {reason.strip()[:_MAX_REASON]}"
        raise InvalidRequestError(message, FIELD) from error


def _check_files(path: Path) -> bool:
    """Whether the adapter replaces weights, instead of adding low ranks to them."""
    config = read_json(path / _CONFIG)
    is_full = config.get("fine_tune_type", "lora") == "full"
    if not is_full and "lora_parameters" not in config:
        raise ModelLoadError(f"{_CONFIG} has no lora_parameters: it is not an adapter of mlx_lm")
    parameters = config.get("lora_parameters")
    scale = parameters.get("scale", 1.0) if isinstance(parameters, dict) else 1.0
    if not (isinstance(scale, int | float) and math.isfinite(scale)):
        raise ModelLoadError(f"the scale in {_CONFIG} is no number")
    check_safetensors(path / _WEIGHTS)
    return is_full


def _check_weights(module: nn.Module, file: Path, *, is_full: bool) -> None:
    """mlx_lm leaves random values where weights are missing."""
    given = cast(dict[str, mx.array], mx.load(str(file)))
    if not all(mx.isfinite(weight).all().item() for weight in given.values()):
        raise ModelLoadError(f"{file.name} has values that are not finite")
    wanted = {name for name, _ in tree_flatten(module.parameters())}
    low_ranks = {name.rpartition(".")[0] for name in wanted if name.endswith(".lora_a")}
    missing = [
        name
        for name in sorted(wanted - given.keys())
        if name.rpartition(".")[0] in low_ranks and name.rpartition(".")[2] in _LOW_RANKS
    ]
    if missing and not is_full:
        raise ModelLoadError(f"{file.name} lacks {', '.join(missing[:3])}")
