"""The models folder, and LM Studio's, which has the same layout.

A model is a GGUF file or a folder, in the source's folder or one level deeper
(``publisher/model``). GGUF files of a model's folder may lie one level deeper still, as in
repositories with a folder for each quantization.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jobs.catalog.entry import ModelEntry, Source
from jobs.catalog.sources.folder_view import FolderView, view_of
from jobs.catalog.sources.layout import (
    GgufFile,
    gguf_files,
    mlx_problem,
    projector_of,
    real_root,
)

_CONFIG = "config.json"


def models_folder(folder: Path) -> Iterator[ModelEntry]:
    """The models folder. Links in it are the user's own, and may lead anywhere."""
    yield from _tree(view_of(folder), "models")


def lm_studio(folder: Path) -> Iterator[ModelEntry]:
    """LM Studio's folder of models."""
    root = real_root(folder)
    if root is not None:
        yield from _tree(view_of(Path(root), root), "lmstudio")


def _tree(top: FolderView, source: Source) -> Iterator[ModelEntry]:
    yield from _by_path(top, "", source)
    for name in top.folders:
        view = top.inner(name)
        if _CONFIG in view.files:
            yield from model_folder(view, name, source)
            continue
        yield from _by_path(view, f"{name}/", source)
        for inner in view.folders:
            yield from model_folder(view.inner(inner), f"{name}/{inner}", source)


def _by_path(view: FolderView, prefix: str, source: Source) -> Iterator[ModelEntry]:
    for file in gguf_files(view):
        yield gguf_entry(file, f"{prefix}{file.name}", source)


def model_folder(view: FolderView, name: str, source: Source) -> Iterator[ModelEntry]:
    """The models of one folder: an MLX model by the folder's name, GGUF files beside it.

    A GGUF file is ``name:QUANTIZATION`` if only one has it, else ``name/file``.
    """
    views = [view, *map(view.inner, view.folders)]
    files = [file for one in views for file in gguf_files(one)]
    weights = view.size_of(".safetensors")
    if _CONFIG in view.files and (weights or not files):
        yield ModelEntry(name, view.path, "mlx", weights, source, problem=mlx_problem(view))
    counts = Counter(file.quantization for file in files)
    projector = projector_of(view)
    for file in files:
        is_alone = file.quantization and counts[file.quantization] == 1
        called = f"{name}:{file.quantization}" if is_alone else f"{name}/{file.name}"
        yield replace(gguf_entry(file, called, source), projector=projector)


def gguf_entry(file: GgufFile, name: str, source: Source) -> ModelEntry:
    """The entry of a GGUF file."""
    return ModelEntry(
        name,
        file.path,
        "llama-cpp",
        file.size_bytes,
        source,
        quantization=file.quantization,
        problem=file.problem,
    )
