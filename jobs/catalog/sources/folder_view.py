"""One reading of a folder: its files with their sizes, its folders, and links that lead out."""

from __future__ import annotations

import functools
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(slots=True)
class FolderView:
    """The files of a folder by name and the names of its folders, both without dot names.

    Links are followed, a dangling one counts as missing. ``leading_out`` names the links to places
    outside ``root``; without a root there are none.
    """

    path: Path
    root: str | None = None
    files: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    leading_out: list[str] = field(default_factory=list)

    def size_of(self, *suffixes: str) -> int:
        """Total size of the files with one of these endings, in bytes."""
        return sum(s.st_size for name, s in self.files.items() if name.lower().endswith(suffixes))

    def inner(self, name: str) -> FolderView:
        """The view of one of the folders."""
        return view_of(self.path / name, self.root)


def view_of(path: Path, root: str | None = None) -> FolderView:
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
    if item.name.startswith(".") or not _is_text(item.name):
        return
    try:
        state = item.stat()
    except OSError:
        return
    is_link = view.root is not None and item.is_symlink()
    if is_link and not is_inside(item.path, str(view.root), state.st_dev, state.st_ino):
        view.leading_out.append(item.name)
    elif stat.S_ISDIR(state.st_mode):
        view.folders.append(item.name)
    elif stat.S_ISREG(state.st_mode):
        view.files[item.name] = state


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leads_inside(path: Path, root: str) -> bool:
    state = path.stat()
    return is_inside(str(path), root, state.st_dev, state.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def is_inside(path: str, root: str, device: int, inode: int) -> bool:
    """Whether the place that ``path`` leads to is ``root`` or below it.

    ``device`` and ``inode`` are those of that place: an answer is kept until it is another one.
    """
    place = os.path.realpath(path)
    return place == root or place.startswith(root.rstrip(os.sep) + os.sep)
