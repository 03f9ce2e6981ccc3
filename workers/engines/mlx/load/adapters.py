"""LoRA adapters: folders in mlx_lm's format, applied to a model at load."""

from __future__ import annotations

from pathlib import Path

import mlx.nn as nn

from jobs.catalog.mlx_folder import read_json
from jobs.catalog.mlx_weights import check_safetensors
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.engines.mlx import library

FIELD = "adapter_name"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapters.safetensors"
_MAX_REASON = 500  # characters; the library lists every tensor that does not fit


def apply_adapter(module: nn.Module, path: Path) -> None:
    """Apply the adapter in ``path`` to the model; its weights are not read yet.

    Raises ``InvalidRequestError`` with the reason if the adapter does not fit.
    """
    try:
        _check_files(path)
        library.load_adapter(module, path)
    except Exception as error:  # mlx_lm raises anything; the first line contains a path
        reason = str(error).partition("\n")[2] or str(error) or repr(error)
        message = f"the adapter {path.name!r} cannot be used: {reason.strip()[:_MAX_REASON]}"
        raise InvalidRequestError(message, FIELD) from error


def _check_files(path: Path) -> None:
    config = read_json(path / _CONFIG)
    if config.get("fine_tune_type", "lora") != "full" and "lora_parameters" not in config:
        raise ModelLoadError(f"{_CONFIG} has no lora_parameters: it is not an adapter of mlx_lm")
    check_safetensors(path / _WEIGHTS)
