"""The cache of Hugging Face's libraries: snapshots, whose files are links to blobs.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. The snapshot is the one of
the branch ``main``, or the only one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from jobs.catalog.entry import ModelEntry
from jobs.catalog.sources.folder_view import view_of
from jobs.catalog.sources.folders import model_folder
from jobs.catalog.sources.layout import real_root

_PREFIX = "models--"
_MAX_REF_CHARS = 100


def hugging_face(cache: Path) -> Iterator[ModelEntry]:
    """The models of the cache, by the names of their repositories."""
    root = real_root(cache)
    if root is None:
        return
    for name in view_of(root, root).folders:
        if name.startswith(_PREFIX):
            repository = name.removeprefix(_PREFIX).replace("--", "/")
            snapshot = _snapshot(f"{root}/{name}")
            if snapshot is not None:
                yield from model_folder(view_of(snapshot, root), repository, "hf")


def _snapshot(folder: str) -> str | None:
    snapshots, ref = f"{folder}/snapshots", f"{folder}/refs/main"
    try:
        state = os.stat(ref)
        commit = _ref(ref, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        found = view_of(snapshots).folders
        return f"{snapshots}/{found[0]}" if len(found) == 1 else None
    # The text could be a path.
    return f"{snapshots}/{commit}" if commit.isalnum() else None


@functools.lru_cache(maxsize=4096)
def _ref(path: str, modified_ns: int, size: int) -> str:
    """The commit of a branch. Kept until it changes."""
    with open(path, encoding="utf-8") as file:
        return file.read(_MAX_REF_CHARS).strip()
