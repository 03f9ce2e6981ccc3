"""The place of a model in the models folder: which one, and whether it is there already."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jobs.contract.errors import ModelConflictError
from workers.pull.choice import Choice
from workers.pull.download import has_content
from workers.pull.hub import RemoteFile


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model's files go. ``folder``: the models folder, or one below it.

    ``missing`` are the files that are not there yet; none is there with another content.
    """

    name: str
    folder: Path
    choice: Choice
    missing: tuple[RemoteFile, ...]

    def path_of(self, file: RemoteFile) -> Path:
        """Where the file is in the end."""
        root = self.folder / self.choice.name if self.choice.is_folder else self.folder
        return root / self.choice.place_of(file)

    def take_in(self, files: Path) -> None:
        """Move the whole model from the folder ``files`` to its place.

        A folder is renamed. Of a split GGUF file the first part comes last, since it makes the
        model visible.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.choice.is_folder:
            (files).rename(self.folder / self.choice.name)
        else:
            for file in reversed(self.missing):
                (files / self.choice.place_of(file)).rename(self.path_of(file))
        _sync(self.folder)


def find_place(models_dir: Path, repo: str, choice: Choice) -> Place:
    """``models/<model>`` if that is free or has the same content; if not, the same in a folder of
    the publisher's name.

    Raises ``ModelConflictError`` when both have another content.
    """
    publisher = repo.partition("/")[0] if "/" in repo else ""
    candidates = {choice.name: models_dir}
    if publisher:
        candidates[f"{publisher}/{choice.name}"] = models_dir / publisher
    for name, folder in candidates.items():
        place = _look(name, folder, choice)
        if place is not None:
            return place
    taken = " and ".join(candidates)
    first = next(iter(candidates))
    message = f"the models folder has another {taken} already: remove one first (mgs rm {first})"
    raise ModelConflictError(message, "model")


def _look(name: str, folder: Path, choice: Choice) -> Place | None:
    """The place, ``None`` if something else is there."""
    if (folder / "config.json").exists() or (folder.exists() and not folder.is_dir()):
        return None  # the publisher's name is that of a model
    every = Place(name, folder, choice, choice.files)
    if choice.is_folder and not os.path.lexists(folder / choice.name):
        return every
    missing = []
    for file in choice.files:
        path = every.path_of(file)
        is_free = not os.path.lexists(path)
        if is_free and not choice.is_folder:
            missing.append(file)
        elif is_free or not has_content(path, file):
            return None
    return Place(name, folder, choice, tuple(missing))


def _sync(folder: Path) -> None:
    """Make renames in the folder permanent."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
