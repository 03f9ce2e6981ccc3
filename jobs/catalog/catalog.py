"""The models and LoRA adapters on disk. Each call reads the folders again.

A folder with a ``config.json`` is an MLX model, a ``*.gguf`` file a GGUF model; a split GGUF
(``-00001-of-0000N``) is one model, named by its first part. A projector for images
(``mmproj-*.gguf``) is not a model. An MLX adapter is a folder with ``adapter_config.json`` and
``adapters.safetensors``, a GGUF adapter a ``*.gguf`` file. A name is looked up among the folder's
entries and never joined to a path, so it cannot lead outside.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from jobs.contract.errors import AdapterNotFoundError, InvalidRequestError, ModelNotFoundError
from jobs.settings import Settings

_SPLIT_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_PROJECTOR = re.compile(r"(^|[-_.])mmproj([-_.])", re.IGNORECASE)
_FAKE_NAME = re.compile(r"fake(-\d{1,4}ms)?")

log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


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
    entries = _read_each(settings.models_dir, _entry)
    if settings.fake_engine:
        entries.append(ModelEntry("fake", Path("fake"), "fake", 0))
    return sorted(entries, key=lambda entry: entry.name)


def find_model(settings: Settings, name: str, param: str = "llm_model_name") -> ModelEntry:
    """The model of that name. Raises ``ModelNotFoundError`` with ``param`` when there is none."""
    if settings.fake_engine and _FAKE_NAME.fullmatch(name):
        return ModelEntry(name, Path(name), "fake", 0)
    for entry in list_models(settings):
        if entry.name == name:
            return entry
    raise ModelNotFoundError(f"there is no model {name[:120]!r} in the models folder", param)


def find_draft(settings: Settings, name: str, backend: str) -> ModelEntry:
    """The draft model of that name. It needs the same ``backend`` as the model it drafts for.

    Raises ``ModelNotFoundError`` or ``InvalidRequestError``.
    """
    entry = find_model(settings, name, "draft_model")
    if entry.backend != backend:
        message = f"draft_model: {entry.name!r} is a model for {entry.backend}, not for {backend}"
        raise InvalidRequestError(message, "draft_model")
    return entry


def list_adapters(folder: Path | None) -> list[AdapterEntry]:
    """All LoRA adapters of the folder, sorted by name."""
    found = [] if folder is None else _read_each(folder, _adapter)
    return sorted(found, key=lambda entry: entry.name)


def find_adapter(folder: Path | None, name: str, backend: str) -> AdapterEntry:
    """The adapter of that name for models of ``backend``. A GGUF name may lack its suffix.

    Raises ``AdapterNotFoundError`` when there is none. The fake engine takes both kinds.
    """
    for entry in list_adapters(folder):
        is_meant = name == entry.name or (entry.is_file and name == Path(entry.name).stem)
        if is_meant and backend in (entry.backend, "fake"):
            return entry
    message = f"there is no adapter {name[:120]!r} for {backend} in the adapters folder"
    raise AdapterNotFoundError(message, "adapter_name")


def _read_each(folder: Path, read: Callable[[Path], _Found | None]) -> list[_Found]:
    """The non-empty results of ``read`` for the folder's entries.

    Entries that cannot be read are skipped. So are names that are not UTF-8: JSON cannot hold them.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            path.name.encode()
            entry = read(path)
        except (OSError, UnicodeEncodeError) as error:
            log.debug("entry cannot be read", extra={"path": repr(path), "error": str(error)})
            continue
        if entry is not None:
            found.append(entry)
    return found


def _size(files: Iterable[Path]) -> int:
    """Total size in bytes of the files that exist. A link may be dangling."""
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def _entry(path: Path) -> ModelEntry | None:
    if path.name.startswith("."):
        return None
    if path.is_dir() and (path / "config.json").is_file():
        return ModelEntry(path.name, path, "mlx", _size(path.glob("*.safetensors")))
    if path.suffix.lower() == ".gguf" and path.is_file() and not _PROJECTOR.search(path.name):
        return _gguf_entry(path)
    return None


def _gguf_entry(path: Path) -> ModelEntry | None:
    part = _SPLIT_PART.search(path.name)
    if part is None:
        return ModelEntry(path.name, path, "llama-cpp", _size([path]))
    if int(part[1]) != 1:
        return None  # the first part stands for the model
    stem = glob.escape(path.name.removesuffix(part[0]))
    siblings = path.parent.glob(f"{stem}-*-of-{part[2]}.gguf")
    return ModelEntry(path.name, path, "llama-cpp", _size(siblings))


def _adapter(path: Path) -> AdapterEntry | None:
    if path.name.startswith("."):
        return None
    weights = path / "adapters.safetensors"
    if (path / "adapter_config.json").is_file() and weights.is_file():
        return AdapterEntry(path.name, path, "mlx", _size([weights]))
    if path.suffix.lower() == ".gguf" and path.is_file():
        return AdapterEntry(path.name, path, "llama-cpp", _size([path]))
    return None
