"""Removes a model from the models folder: out of sight first, then from the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from jobs.catalog.catalog import ModelEntry, read_catalog
from jobs.catalog.gguf_header import split_parts
from jobs.catalog.partial_downloads import folder_size, new_trash
from jobs.contract.errors import (
    InvalidRequestError,
    ModelConflictError,
    ModelLoadError,
    ModelNotFoundError,
)
from jobs.contract.records import DesiredModel
from jobs.settings import Settings

Desired = Callable[[], Mapping[str, DesiredModel]]


def remove_model(settings: Settings, desired: Desired, name: str) -> int:
    """Remove the model of exactly that name; returns the bytes that became free.

    Raises ``ModelNotFoundError``; ``ModelConflictError`` when it is loaded or to be loaded;
    ``InvalidRequestError`` when it is not in the models folder.
    """
    entry = _find(settings, name)
    _check_unused(desired, entry.name)
    trash = new_trash(settings.models_dir)
    paths = _paths_of(entry)
    for number, path in enumerate(paths):
        path.rename(trash / str(number))
    try:
        # Again: a load may have begun meanwhile. From now on, none finds the model.
        _check_unused(desired, entry.name)
    except BaseException:
        for number, path in reversed(list(enumerate(paths))):
            (trash / str(number)).rename(path)
        trash.rmdir()
        raise
    freed = folder_size(trash)
    shutil.rmtree(trash)
    if entry.path.parent != settings.models_dir:
        with suppress(OSError):  # the publisher's folder has other models
            entry.path.parent.rmdir()
    return freed


def _find(settings: Settings, name: str) -> ModelEntry:
    """The entry of that name, whole or not. It may be a link to elsewhere: then that is removed."""
    entries = {entry.name: entry for entry in read_catalog(settings).entries}
    entry = entries.get(name)
    if entry is None:
        message = f"there is no model {name[:120]!r} in the models folder"
        raise ModelNotFoundError(message, "model")
    folder = settings.models_dir.resolve()
    is_here = folder in (entry.path.parent.resolve(), *entry.path.parent.resolve().parents)
    if entry.source != "models" or entry.backend == "fake" or not is_here:
        message = f"{name[:120]!r} is not in the models folder, and belongs to another program"
        raise InvalidRequestError(message, "model")
    inside = [one.name for one in entries.values() if entry.path in one.path.parents]
    if inside:
        raise ModelConflictError(f"the folder of {name!r} has {inside[0]!r}, too: remove it first")
    return entry


def _check_unused(desired: Desired, name: str) -> None:
    for model in desired().values():
        if name in (model.load.model_name, model.load.draft_model):
            message = f"{name!r} is loaded as model {model.model_id!r}: unload it first"
            raise ModelConflictError(message, "model")


def _paths_of(entry: ModelEntry) -> list[Path]:
    """The files or folder of the model; first what makes it visible."""
    found = entry.path.stem.rpartition("-of-")[2]
    if entry.backend != "llama-cpp" or not (found.isdigit() and len(found) == 5):
        return [entry.path]
    try:
        parts = split_parts(entry.path, int(found))
    except ModelLoadError:
        return [entry.path]
    return [part for part in parts if part.is_file()]
