"""Checks GGUF files, for clear errors, and loads the weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jobs.catalog.gguf_header import GgufHeader, read_gguf_header, split_parts
from jobs.contract.errors import ModelLoadError
from workers.engines.base import EngineOptions, OnProgress
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log

_ALL_LAYERS = -1
# A text that is read in two pieces differs from one that is read at once, by up to 5 nats.
_WRONG = ("cogvlm",)


def check_file(path: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises ``ModelLoadError`` if the file or a part is missing, or the model cannot be computed.
    """
    if path.is_dir():
        raise ModelLoadError(f"{path.name}: a folder, not a GGUF file")
    if not path.exists():
        raise ModelLoadError(f"{path.name}: no such file")
    header = read_gguf_header(path)
    if header.num_parts > 1:
        _check_parts(path, header)
    if header.architecture in _WRONG:
        reason = f"llama.cpp computes models of the architecture {header.architecture} wrongly"
        raise ModelLoadError(f"{path.name}: {reason}: not supported")
    return header


def files_of(path: Path, header: GgufHeader) -> list[Path]:
    """The file, or all parts of a split model."""
    return split_parts(path, header.num_parts) if header.num_parts > 1 else [path]


def _check_parts(path: Path, header: GgufHeader) -> None:
    parts = split_parts(path, header.num_parts)
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise ModelLoadError(f"{path.name}: parts are missing: {', '.join(missing)}")
    if header.part != 0:
        number = f"part {header.part + 1} of {header.num_parts}"
        raise ModelLoadError(f"{path.name}: is {number}; load {parts[0].name}")


def load_model(path: Path, options: EngineOptions, on_progress: OnProgress) -> Pointer:
    """Load the weights. Raises ``ModelLoadError`` with the reason."""
    stopped_by: list[BaseException] = []

    def report(fraction: float, _user_data: object) -> bool:
        # An exception cannot pass through llama.cpp: return False to stop, and raise it later.
        try:
            on_progress(fraction)
        except BaseException as error:
            stopped_by.append(error)
        return not stopped_by

    params: Any = lib.llama_model_default_params()
    params.progress_callback = lib.llama_progress_callback(report)
    num_layers = options.num_gpu_layers
    params.n_gpu_layers = _ALL_LAYERS if num_layers is None else num_layers
    llama_log.clear()
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if stopped_by:
        if model:
            lib.llama_model_free(model)
        raise stopped_by[0]
    if not model:
        raise load_error(path, "llama.cpp cannot load it")
    return model


def check_kind(path: Path, header: GgufHeader, model: Pointer) -> None:
    """Raise ``ModelLoadError`` for a model that neither generates token by token nor embeds."""
    if lib.llama_model_has_encoder(model) and lib.llama_model_has_decoder(model):
        kind = "an encoder-decoder model"
    elif lib.llama_model_is_diffusion(model):
        kind = "a diffusion model"
    else:
        return
    reason = "not one that generates text token by token: not supported"
    raise ModelLoadError(f"{path.name}: {kind} ({header.architecture}), {reason}")


def is_encoder(header: GgufHeader, model: Pointer) -> bool:
    """Whether the model's tokens see the ones after them, so that it has no next token.

    Of some, only llama.cpp knows it: they get no memory, see ``NoMemoryError``.
    """
    is_causal = header.metadata.get(f"{header.architecture}.attention.causal", True)
    return not is_causal or bool(lib.llama_model_has_encoder(model))


def load_error(path: Path, reason: str) -> ModelLoadError:
    """The error, with llama.cpp's last warnings in its message."""
    detail = llama_log.warnings()
    return ModelLoadError(
        f"{path.name}: {reason}: {detail}" if detail else f"{path.name}: {reason}"
    )
