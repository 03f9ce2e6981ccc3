"""One reading of a folder: its files with their sizes, its folders, and links that lead out."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

log = logging.getLogger(__name__)


_SETTLED_NS = 2 * 10**9  # longer than the times of file systems are apart
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
        return f"{self.path}/{name}"

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
        state = os.stat(path)
        if root is not None and not is_inside(path, root, state.st_dev, state.st_ino):
            return view
        # Two changes may have one time, so a folder that has just changed is read again.
        is_settled = time.time_ns() - state.st_mtime_ns > _SETTLED_NS
        items = _kept_items(path, state.st_mtime_ns) if is_settled else _read_items(path)
    except OSError as error:
        log.debug("folder cannot be read", extra={"path": repr(path), "error": str(error)})
        return view
    for item in items:
        with contextlib.suppress(OSError):  # it has gone since, or is a dangling link
            _add(view, item)
    return view


class _Item(NamedTuple):
    name: str
    kind: Literal["file", "folder", "link"]


def _read_items(path: str) -> tuple[_Item, ...]:
    with os.scandir(path) as found:
        return tuple(
            _Item(one.name, _kind_of(one))
            for one in found
            if not one.name.startswith(".") and _is_text(one.name)
        )


def _kind_of(item: os.DirEntry[str]) -> Literal["file", "folder", "link"]:
    if item.is_symlink():
        return "link"
    return "folder" if item.is_dir() else "file"


@functools.lru_cache(maxsize=1 << 14)
def _kept_items(path: str, modified_ns: int) -> tuple[_Item, ...]:
    """Kept until the folder changes. Sizes, and what links lead to, are asked for each time."""
    return _read_items(path)


def _add(view: FolderView, item: _Item) -> None:
    name, kind = item
    if kind == "folder":
        view.folders.append(name)
    elif kind == "link":
        _add_link(view, name)
    elif name.lower().endswith(_WITH_STATE):
        state = os.stat(view.place_of(name))
        if stat.S_ISREG(state.st_mode):
            view.files[name] = state
    else:
        view.files[name] = None


def _add_link(view: FolderView, name: str) -> None:
    path = view.place_of(name)
    state = os.stat(path)
    if view.root is not None and not is_inside(path, view.root, state.st_dev, state.st_ino):
        view.leading_out.append(name)
    elif stat.S_ISDIR(state.st_mode):
        view.folders.append(name)
    elif stat.S_ISREG(state.st_mode):
        view.files[name] = state


def _is_text(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.lru_cache(maxsize=1 << 16)
def is_inside(path: str, root: str, device: int, inode: int) -> bool:
    """Whether the place that ``path`` leads to is ``root`` or below it.

    ``device`` and ``inode`` are those of that place: an answer is kept until it is another one.
    """
    place = os.path.realpath(path)
    return place == root or place.startswith(root.rstrip("/") + "/")


@functools.lru_cache(maxsize=1 << 14)
def path_of(place: str) -> Path:
    """The text as a ``Path``, which takes some time to make."""
    return Path(place)
