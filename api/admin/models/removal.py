"""Removes a model from the models folder: out of sight first, then from the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from jobs.catalog.catalog import ModelEntry, list_models
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
    for entry in list_models(settings):
        if entry.name == name:
            break
    else:
        message = f"there is no model {name[:120]!r} in the models folder"
        raise ModelNotFoundError(message, "model")
    folder = settings.models_dir.resolve()
    # The entry itself may be a link to elsewhere: then only the link is removed.
    if entry.backend == "fake" or folder not in (entry.path.parent.resolve() / "x").parents:
        raise InvalidRequestError(f"{name[:120]!r} is not in the models folder", "model")
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
