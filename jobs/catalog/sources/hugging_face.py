"""The cache of Hugging Face's libraries: snapshots, whose files are links to blobs.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. The snapshot is the one of
the branch ``main``, or the only one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.catalog.entry import ModelEntry
from jobs.catalog.sources.folder_view import view_of
from jobs.catalog.sources.folders import model_folder
from jobs.catalog.sources.layout import real_root

_PREFIX = "models--"


def hugging_face(cache: Path) -> Iterator[ModelEntry]:
    """The models of the cache, by the names of their repositories."""
    root = real_root(cache)
    if root is None:
        return
    for name in view_of(Path(root), root).folders:
        if name.startswith(_PREFIX):
            repository = name.removeprefix(_PREFIX).replace("--", "/")
            snapshot = _snapshot(Path(root, name))
            if snapshot is not None:
                yield from model_folder(view_of(snapshot, root), repository, "hf")


def _snapshot(folder: Path) -> Path | None:
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        found = view_of(snapshots).folders
        return snapshots / found[0] if len(found) == 1 else None
    # The text could be a path.
    return snapshots / commit if commit.isalnum() else None
