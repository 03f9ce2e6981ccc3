"""What is on disk: the folders of models and of LoRA adapters, read again at each call.

A folder with a ``config.json`` is an MLX model, a ``*.gguf`` file a GGUF model; a split GGUF
(``-00001-of-0000N``) is one model, named by its first part. An MLX adapter is a folder with
``adapter_config.json`` and ``adapters.safetensors``, a GGUF adapter a ``*.gguf`` file. Names are
entries of the folder and are only ever looked up, never joined to a path, so none can lead out.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import AdapterNotFoundError, InvalidRequestError, ModelNotFoundError
from jobs.settings import Settings

_SPLIT_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_FAKE_NAME = re.compile(r"fake(-\d{1,4}ms)?")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model on disk. ``backend`` is ``mlx``, ``llama-cpp`` or ``fake``."""

    name: str
    path: Path
    backend: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """One LoRA adapter on disk, for models of ``backend``."""

    name: str
    path: Path
    backend: Literal["mlx", "llama-cpp"]
    size_bytes: int

    @property
    def is_file(self) -> bool:
        return self.backend == "llama-cpp"


def list_models(settings: Settings) -> list[ModelEntry]:
    """All models, sorted by name."""
    folder = settings.models_dir
    found = [_entry(path) for path in folder.iterdir()] if folder.is_dir() else []
    entries = [entry for entry in found if entry is not None]
    if settings.fake_engine:
        entries.append(ModelEntry("fake", Path("fake"), "fake", 0))
    return sorted(entries, key=lambda entry: entry.name)


def find_model(settings: Settings, name: str, param: str = "llm_model_name") -> ModelEntry:
    """The model of that name; ``ModelNotFoundError`` (of ``param``) when there is none."""
    if settings.fake_engine and _FAKE_NAME.fullmatch(name):
        return ModelEntry(name, Path(name), "fake", 0)
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    raise ModelNotFoundError(f"there is no model {name[:120]!r} in the models folder", param)


def find_draft(settings: Settings, name: str, backend: str) -> ModelEntry:
    """The model that drafts for one of ``backend``; the same library must run both."""
    entry = find_model(settings, name, "draft_model")
    if entry.backend != backend:
        message = f"draft_model: {entry.name!r} is a model for {entry.backend}, not for {backend}"
        raise InvalidRequestError(message, "draft_model")
    return entry


def list_adapters(settings: Settings) -> list[AdapterEntry]:
    """All LoRA adapters, sorted by name."""
    folder = settings.adapters_dir
    found = [_adapter(path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.name)


def find_adapter(settings: Settings, name: str, backend: str) -> AdapterEntry:
    """The adapter of that name for models of ``backend``; a GGUF one also without its suffix.

    ``AdapterNotFoundError`` when there is none. The fake engine takes adapters of both kinds.
    """
    for entry in list_adapters(settings):
        is_meant = name == entry.name or (entry.is_file and name == Path(entry.name).stem)
        if is_meant and backend in (entry.backend, "fake"):
            return entry
    message = f"there is no adapter {name[:120]!r} for {backend} in the adapters folder"
    raise AdapterNotFoundError(message, "adapter_name")


def _entry(path: Path) -> ModelEntry | None:
    if path.name.startswith("."):
        return None
    if path.is_dir() and (path / "config.json").is_file():
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        return ModelEntry(path.name, path, "mlx", size)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _gguf_entry(path)
    return None


def _gguf_entry(path: Path) -> ModelEntry | None:
    part = _SPLIT_PART.search(path.name)
    if part is None:
        return ModelEntry(path.name, path, "llama-cpp", path.stat().st_size)
    if int(part[1]) != 1:
        return None  # the first part stands for all
    stem = glob.escape(path.name.removesuffix(part[0]))
    siblings = path.parent.glob(f"{stem}-*-of-{part[2]}.gguf")
    return ModelEntry(path.name, path, "llama-cpp", sum(file.stat().st_size for file in siblings))


def _adapter(path: Path) -> AdapterEntry | None:
    if path.name.startswith("."):
        return None
    weights = path / "adapters.safetensors"
    if (path / "adapter_config.json").is_file() and weights.is_file():
        return AdapterEntry(path.name, path, "mlx", weights.stat().st_size)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return AdapterEntry(path.name, path, "llama-cpp", path.stat().st_size)
    return None
