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
from jobs.catalog.sources.folder_view import FolderView, is_inside, path_of, view_of
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
    manifests = f"{root}/manifests"
    for name, path in _manifests(view_of(manifests, root), depth=3):
        state = os.stat(path)
        entry = _entry(root, name, layers_of(path, state.st_mtime_ns, state.st_size))
        if entry is not None:
            yield entry


def _manifests(view: FolderView, depth: int, above: str = "") -> Iterator[tuple[str, str]]:
    """Names and paths of the files below host, namespace and model; their names are the tags."""
    if depth == 0:
        yield from ((f"{_short(above)}:{tag}", view.place_of(tag)) for tag in view.files)
        return
    for name in view.folders:
        yield from _manifests(view.inner(name), depth - 1, f"{above}{name}/")


def _short(model: str) -> str:
    """Ollama's short form: without its own host, and without ``library``."""
    return model.removeprefix(_LIBRARY).removeprefix(_REGISTRY).removesuffix("/")


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


def _entry(root: str, name: str, layers: dict[str, list[Layer]]) -> ModelEntry | None:
    models = layers.get("model", [])
    if len(models) != 1 or "adapter" in layers:
        return None
    path = f"{root}/blobs/{models[0].blob}"
    projectors = layers.get("projector", [])
    return ModelEntry(
        name,
        path_of(path),
        "llama-cpp",
        models[0].size,
        "ollama",
        projector=path_of(f"{root}/blobs/{projectors[0].blob}") if projectors else None,
        problem=_problem(path, root, models[0]),
    )


def _problem(path: str, root: str, layer: Layer) -> str:
    try:
        state = os.stat(path)
    except OSError:
        return f"missing: {layer.blob}"
    if state.st_size != layer.size:
        return f"{layer.blob} has {state.st_size} of {layer.size} bytes"
    if not is_inside(path, root, state.st_dev, state.st_ino):
        return f"{layer.blob} leads out of the source"
    return gguf_kind(path, state.st_mtime_ns, state.st_size)[1]
