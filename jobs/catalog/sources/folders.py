"""The models folder, and LM Studio's, which has the same layout.

A model is a GGUF file or a folder, in the source's folder or one level deeper
(``publisher/model``). GGUF files of a model's folder may lie one level deeper still, as in
repositories with a folder for each quantization.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jobs.catalog.entry import ModelEntry, Source
from jobs.catalog.sources.folder_view import FolderView, path_of, view_of
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
    yield from _tree(view_of(str(folder)), "models")


def lm_studio(folder: Path) -> Iterator[ModelEntry]:
    """LM Studio's folder of models."""
    root = real_root(folder)
    if root is not None:
        yield from _tree(view_of(root, root), "lmstudio")


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
    files = [file for one in (view, *map(view.inner, view.folders)) for file in gguf_files(one)]
    weights = [name for name in view.files if name.endswith(".safetensors")]
    if _CONFIG in view.files and (weights or not files):
        size, problem = view.size_of(weights), mlx_problem(view)
        yield ModelEntry(name, path_of(view.path), "mlx", size, source, problem=problem)
    counts = Counter(file.quantization for file in files)
    projector = projector_of(view) if files else None
    for file in files:
        is_alone = file.quantization and counts[file.quantization] == 1
        called = f"{name}:{file.quantization}" if is_alone else f"{name}/{file.name}"
        yield gguf_entry(file, called, source, projector)


def gguf_entry(
    file: GgufFile, name: str, source: Source, projector: Path | None = None
) -> ModelEntry:
    """The entry of a GGUF file."""
    return ModelEntry(
        name,
        file.path,
        "llama-cpp",
        file.size_bytes,
        source,
        quantization=file.quantization,
        projector=projector,
        problem=file.problem,
    )
