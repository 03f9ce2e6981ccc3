"""Ollama's store: manifests by name and tag, whose layers are blobs by their hash.

Layout: https://github.com/ollama/ollama/blob/main/manifest/paths.go. Models with an adapter, and
those that are not one GGUF file, are left out.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jobs.catalog.entry import ModelEntry
from jobs.catalog.sources.folder_view import is_inside, view_of
from jobs.catalog.sources.layout import gguf_kind, real_root

_LAYER = "application/vnd.ollama.image."
_LIBRARY = "registry.ollama.ai/library/"
_REGISTRY = "registry.ollama.ai/"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MAX_MANIFEST_BYTES = 1 << 20


class Layer(NamedTuple):
    """A layer of a manifest: the blob's name, and its size in bytes."""

    blob: str
    size: int


def ollama(folder: Path) -> Iterator[ModelEntry]:
    """The models of the store, as ``name:tag``."""
    root = real_root(folder)
    if root is None:
        return
    for path, state in _manifests(Path(root, "manifests"), root, depth=3):
        layers = layers_of(str(path), state.st_mtime_ns, state.st_size)
        entry = _entry(Path(root), _name(path.relative_to(Path(root, "manifests"))), layers)
        if entry is not None:
            yield entry


def _manifests(folder: Path, root: str, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """The files below host, namespace and model; their names are the tags."""
    view = view_of(folder, root)
    if depth == 0:
        yield from ((folder / name, state) for name, state in view.files.items())
        return
    for name in view.folders:
        yield from _manifests(folder / name, root, depth - 1)


def _name(path: Path) -> str:
    """Ollama's short form: without its own host, and without ``library``."""
    model = path.parent.as_posix().removeprefix(_LIBRARY).removeprefix(_REGISTRY)
    return f"{model}:{path.name}"


@functools.lru_cache(maxsize=4096)
def layers_of(path: str, modified_ns: int, size: int) -> dict[str, list[Layer]]:
    """The layers by kind; empty if the manifest cannot be read. Kept until it changes."""
    if size > _MAX_MANIFEST_BYTES:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        layers: dict[str, list[Layer]] = {}
        for layer in manifest["layers"]:
            kind = str(layer["mediaType"]).removeprefix(_LAYER)
            layers.setdefault(kind, []).append(_layer(layer))
        return layers
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _layer(layer: Any) -> Layer:
    match = _DIGEST.fullmatch(layer["digest"])
    if match is None:
        raise ValueError("the digest is no SHA-256")
    return Layer(f"sha256-{match[1]}", int(layer["size"]))


def _entry(root: Path, name: str, layers: dict[str, list[Layer]]) -> ModelEntry | None:
    models = layers.get("model", [])
    if len(models) != 1 or "adapter" in layers:
        return None
    path = root / "blobs" / models[0].blob
    problem = _problem(path, root, models[0].size)
    projectors = layers.get("projector", [])
    projector = root / "blobs" / projectors[0].blob if projectors else None
    return ModelEntry(
        name,
        path,
        "llama-cpp",
        models[0].size,
        "ollama",
        projector=projector,
        problem=problem,
    )


def _problem(path: Path, root: Path, size: int) -> str:
    try:
        state = path.stat()
    except OSError:
        return f"missing: {path.name}"
    if state.st_size != size:
        return f"{path.name} has {state.st_size} of {size} bytes"
    if not is_inside(str(path), str(root), state.st_dev, state.st_ino):
        return f"{path.name} leads out of the source"
    return gguf_kind(str(path), state.st_mtime_ns, state.st_size)[1]
