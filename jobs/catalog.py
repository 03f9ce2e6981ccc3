"""What is on disk: the models folder, read again at each call.

A folder with a ``config.json`` is an MLX model, a ``*.gguf`` file a GGUF model; a split GGUF
(``-00001-of-0000N``) is one model, named by its first part. Names are entries of the folder and
are only ever looked up, never joined to a path, so none can lead out of it.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import ModelNotFoundError
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


def list_models(settings: Settings) -> list[ModelEntry]:
    """All models, sorted by name."""
    folder = settings.models_dir
    found = [_entry(path) for path in folder.iterdir()] if folder.is_dir() else []
    entries = [entry for entry in found if entry is not None]
    if settings.fake_engine:
        entries.append(ModelEntry("fake", Path("fake"), "fake", 0))
    return sorted(entries, key=lambda entry: entry.name)


def find_model(settings: Settings, name: str) -> ModelEntry:
    """The model of that name; ``ModelNotFoundError`` when there is none."""
    if settings.fake_engine and _FAKE_NAME.fullmatch(name):
        return ModelEntry(name, Path(name), "fake", 0)
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    raise ModelNotFoundError(
        f"there is no model {name[:120]!r} in the models folder", "llm_model_name"
    )


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
