"""The hidden folder of one download: ``plan.json`` and the files that are there so far."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from jobs.catalog.partial_downloads import folder_prefix, locked, partial_folder
from jobs.contract.errors import ModelConflictError
from workers.pull.choice import Choice
from workers.pull.download import SUFFIX
from workers.pull.hub import RemoteFile

_PLAN = "plan.json"
_END_S = 20.0  # an earlier process may be waiting for its disk


class Workspace:
    """``files`` has the whole files under their final names, and others with ``.part``."""

    def __init__(self, path: Path, choice: Choice) -> None:
        self.path = path
        self.files = path / "files"
        self._choice = choice

    def path_of(self, file: RemoteFile) -> Path:
        """The file's path when it is whole."""
        return self.files / self._choice.place_of(file)

    def present_bytes(self, file: RemoteFile) -> int:
        """How much of the file is there."""
        whole = self.path_of(file)
        for path in (whole, whole.with_name(whole.name + SUFFIX)):
            if path.is_file():
                return min(path.stat().st_size, file.size)
        return 0

    def prepare(self) -> None:
        """Write the plan, and remove files of which it says nothing."""
        self.files.mkdir(parents=True, exist_ok=True)
        plan = {self._choice.place_of(file): file.digest for file in self._choice.files}
        (self.path / _PLAN).write_bytes(msgspec.json.encode(plan))
        known = {*plan, *(name + SUFFIX for name in plan)}
        for path in self.files.rglob("*"):
            if path.is_file() and path.relative_to(self.files).as_posix() not in known:
                path.unlink()

    def adopt_from(self, older: Path) -> None:
        """Move files with the same digest from the workspace of another commit, and remove it."""
        try:
            plan = msgspec.json.decode((older / _PLAN).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            plan = {}
        for file in self._choice.files:
            place = self._choice.place_of(file)
            if plan.get(place) == file.digest and not self.present_bytes(file):
                _move(older / "files" / place, self.path_of(file))
        shutil.rmtree(older, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Move the file, whole or in part."""
    for suffix in ("", SUFFIX):
        found = source.with_name(source.name + suffix)
        if found.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            found.replace(target.with_name(target.name + suffix))
            return


@contextmanager
def workspace(models_dir: Path, repo: str, commit: str, choice: Choice) -> Iterator[Workspace]:
    """The locked workspace of a download, with what earlier commits have in common with it.

    Raises ``ModelConflictError`` when another process has it.
    """
    kind = f"+{choice.quant}" if choice.quant else ""
    prefix = f"{folder_prefix(repo)}@"
    path = partial_folder(models_dir) / f"{prefix}{commit}{kind}"
    path.mkdir(parents=True, exist_ok=True)
    with locked(path, _END_S) as is_ours:
        if not is_ours:
            raise ModelConflictError(f"{repo} is being downloaded by another process", "model")
        found = Workspace(path, choice)
        found.files.mkdir(exist_ok=True)
        for older in path.parent.iterdir():
            is_same = older.name.startswith(prefix) and older.name.partition("+")[2] == kind[1:]
            if is_same and older != path:
                with locked(older) as is_free:
                    if is_free:
                        found.adopt_from(older)
        found.prepare()
        yield found
