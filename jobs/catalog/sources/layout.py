"""Which models a folder holds, and whether each is complete, judged by names and sizes.

Neither projectors nor adapters are models, and neither are half of the files of one. That a file is
as long as its header says is checked when it is loaded.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.catalog.gguf_header import GgufHeader, read_gguf_start
from jobs.catalog.sources.folder_view import FolderView, path_of
from jobs.contract.errors import ModelLoadError

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = re.compile(r"tokenizer\.(json|model)|spiece\.model|vocab\.(json|txt)|.*\.tiktoken")
_GGUF_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_MLX_PART = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PROJECTOR = re.compile(r"(^|[-_.])mmproj([-_.])", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:(?:I?Q|TQ)\d+(?:_[A-Z0-9]+)*|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))"
    r"(?=[-_.]|$)",
    re.IGNORECASE,
)
_OTHER_KINDS = frozenset(("adapter", "mmproj", "imatrix"))


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF model in a folder. ``name`` is the file's, of a split model the first part's."""

    name: str
    path: Path
    size_bytes: int
    quantization: str
    problem: str


def mlx_problem(view: FolderView) -> str:
    """Why the folder's MLX model cannot be loaded, "" if it looks complete."""
    if view.leading_out:
        return f"{view.leading_out[0]} leads out of the source"
    present = {n for n in view.files if n.startswith("model") and n.endswith(".safetensors")}
    missing = _missing_by_index(view, present)
    if not missing or _is_whole_set(present):
        missing = _missing_parts(present)
    if missing:
        return f"missing: {', '.join(sorted(missing)[:3])}"
    if not present:
        return "it has no weights (model*.safetensors)"
    has_tokenizer = any(map(_TOKENIZERS.fullmatch, view.files))
    return "" if has_tokenizer else "it has no tokenizer"


def _missing_by_index(view: FolderView, present: set[str]) -> set[str]:
    state = view.files.get(_INDEX)
    if state is None:
        return set()
    named = indexed_files(view.place_of(_INDEX), state.st_mtime_ns, state.st_size)
    return set(named) - present


def _is_whole_set(present: set[str]) -> bool:
    """Whether the files are a model without the index, which may be stale."""
    is_split = any(map(_MLX_PART.fullmatch, present))
    return bool(present) and not _missing_parts(present) and (is_split or len(present) == 1)


def _missing_parts(present: set[str]) -> set[str]:
    """The parts that the names of the others announce."""
    counts = {match[2] for match in map(_MLX_PART.fullmatch, present) if match}
    announced = {
        f"model-{part:05}-of-{count}.safetensors"
        for count in counts
        for part in range(1, int(count) + 1)
    }
    return announced - present


@functools.lru_cache(maxsize=4096)
def indexed_files(path: str, modified_ns: int, size: int) -> frozenset[str]:
    """The weight files that an index names, none if it cannot be read. Kept until it changes."""
    try:
        with open(path, encoding="utf-8") as file:
            places = json.load(file)["weight_map"]
        return frozenset(name for name in places.values() if isinstance(name, str))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return frozenset()  # its load says what is wrong


def gguf_files(view: FolderView) -> Iterator[GgufFile]:
    """The GGUF models of a folder."""
    for name, state in view.files.items():
        if state is None or not name.lower().endswith(".gguf") or _PROJECTOR.search(name):
            continue
        part = _GGUF_PART.search(name)
        if part is not None and int(part[1]) != 1:
            continue  # the first part stands for the model
        path = view.place_of(name)
        kind, problem = gguf_kind(path, state.st_mtime_ns, state.st_size)
        if kind in _OTHER_KINDS:
            continue
        parts = [name] if part is None else _parts_of(name, part)
        problem = problem or _gguf_problem(view, parts)
        yield GgufFile(name, path_of(path), view.size_of(parts), quantization_in(name), problem)


def _parts_of(name: str, part: re.Match[str]) -> list[str]:
    stem, ending = name[: part.start()], name[part.end() - len(".gguf") :]
    numbers = range(1, int(part[2]) + 1)
    return [f"{stem}-{number:05}-of-{part[2]}{ending}" for number in numbers]


def _gguf_problem(view: FolderView, parts: list[str]) -> str:
    missing = [part for part in parts if part not in view.files]
    return f"missing: {', '.join(missing[:3])}" if missing else ""


@functools.lru_cache(maxsize=1 << 14)
def gguf_kind(path: str, modified_ns: int, size: int) -> tuple[str, str]:
    """What a GGUF file holds (``model``, ``adapter``, ``mmproj``), and why it is none.

    Kept until the file changes.
    """
    try:
        header = read_gguf_start(Path(path))
    except ModelLoadError as error:
        return "model", error.message.partition(": ")[2] if _lacks_magic(path) else ""
    return _kind_of(header), ""


def _lacks_magic(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) != b"GGUF"
    except OSError:
        return True


def _kind_of(header: GgufHeader) -> str:
    kind = header.metadata.get("general.type", "model")
    return "mmproj" if header.architecture == "clip" else str(kind)


def projector_of(view: FolderView) -> Path | None:
    """The first projector in a model's folder."""
    found = sorted(n for n in view.files if n.lower().endswith(".gguf") and _PROJECTOR.search(n))
    return path_of(view.place_of(found[0])) if found else None


@functools.lru_cache(maxsize=1 << 14)
def quantization_in(name: str) -> str:
    """The quantization that a file's name says (``Q4_K_M``), "" if it says none."""
    stem = _GGUF_PART.sub("", name)
    stem = stem[: -len(".gguf")] if stem.lower().endswith(".gguf") else stem
    found = _QUANTIZATION.findall(stem)
    return str(found[-1]).upper() if found else ""


def real_root(path: Path) -> str | None:
    """The folder of a source without links in its path, ``None`` if there is none."""
    return os.path.realpath(path) if path.is_dir() else None
