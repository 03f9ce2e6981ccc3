"""One reading of a folder: its files with their sizes, its folders, and links that lead out."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


_WITH_STATE = (".safetensors", ".gguf", ".index.json")
"""Files whose sizes and times are asked for; of 1,000 models, asking for all would take twice as
long."""


@dataclass(slots=True)
class FolderView:
    """The files of a folder by name and the names of its folders, both without dot names.

    Files that hold weights or list them have their state. Links are followed, a dangling one counts
    as missing. ``leading_out`` names the links to places outside ``root``; without a root there are
    none. The path is a text, as of thousands of folders few become a ``Path``.
    """

    path: str
    root: str | None = None
    files: dict[str, os.stat_result | None] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    leading_out: list[str] = field(default_factory=list)

    def place_of(self, name: str) -> str:
        """The path of a file or folder in it."""
        return f"{self.path}{os.sep}{name}"

    def size_of(self, names: Iterable[str]) -> int:
        """Total size of those of the files that are there, in bytes."""
        return sum(state.st_size for name in names if (state := self.files.get(name)))

    def inner(self, name: str) -> FolderView:
        """The view of one of the folders."""
        return view_of(self.place_of(name), self.root)


def view_of(path: str, root: str | None = None) -> FolderView:
    """Read a folder; one that is missing or cannot be read is empty.

    ``root`` is a resolved path. Names that are not UTF-8 are left out: JSON cannot hold them.
    """
    view = FolderView(path, root)
    try:
        if root is not None and not _leads_inside(path, root):
            return view
        with os.scandir(path) as found:
            for item in found:
                _add(view, item)
    except OSError as error:
        log.debug("folder cannot be read", extra={"path": repr(path), "error": str(error)})
    return view


def _add(view: FolderView, item: os.DirEntry[str]) -> None:
    name = item.name
    if name.startswith(".") or not _is_text(name):
        return
    try:
        is_link = item.is_symlink()
        state = item.stat() if is_link or name.lower().endswith(_WITH_STATE) else None
        is_folder, is_file = item.is_dir(), item.is_file()
    except OSError:
        return
    if is_link and state and view.root and not _is_target_inside(item.path, view.root, state):
        view.leading_out.append(name)
    elif is_folder:
        view.folders.append(name)
    elif is_file:
        view.files[name] = state


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_inside(path: str, root: str) -> bool:
    return _is_target_inside(path, root, os.stat(path))


def _is_target_inside(path: str, root: str, state: os.stat_result) -> bool:
    return is_inside(path, root, state.st_dev, state.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def is_inside(path: str, root: str, device: int, inode: int) -> bool:
    """Whether the place that ``path`` leads to is ``root`` or below it.

    ``device`` and ``inode`` are those of that place: an answer is kept until it is another one.
    """
    place = os.path.realpath(path)
    return place == root or place.startswith(root.rstrip(os.sep) + os.sep)
