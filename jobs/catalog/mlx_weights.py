"""Which weight files belong to a model folder, and whether they are whole.

MLX maps weights lazily, so a truncated file would crash the process instead of failing the load.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.catalog.mlx_folder import Json, read_optional_json
from jobs.contract.errors import ModelLoadError

_INDEX = "model.safetensors.index.json"
_PATTERN = "model*.safetensors"  # the one in mlx_lm.utils.load_model
_LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header, little-endian
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}


def find_weights(path: Path) -> list[Path]:
    """The weight files of the model folder ``path``: those that its index names, or all of
    ``model*.safetensors`` if there is no index, or a stale one of which they have every tensor.

    Raises ``ModelLoadError`` if files are missing, broken, or contradict each other.
    """
    present = sorted(path.glob(_PATTERN))
    places = _read_index(path)
    named = sorted({path / name for name in places.values()})
    missing = [file.name for file in named if not file.is_file()]
    if named and not missing:
        for file in named:
            check_safetensors(file)
        return named
    if not (present or missing):
        raise ModelLoadError(f"{path.name} has no weights ({_PATTERN})")
    tensors = _tensors(path, present)
    if missing and not places.keys() <= tensors:
        raise ModelLoadError(f"{path.name}: weights are missing: {', '.join(missing)}")
    return present


def _read_index(path: Path) -> dict[str, str]:
    """Tensor -> name of its file; empty without an index."""
    places: Any = read_optional_json(path / _INDEX).get("weight_map", {})
    is_right = isinstance(places, dict) and all(
        isinstance(name, str) and Path(name).name == name for name in places.values()
    )
    if not is_right:
        message = f"the weight_map of {_INDEX} does not give the file of each tensor"
        raise ModelLoadError(f"{path.name} cannot be loaded: {message}")
    found: dict[str, str] = places
    return found


def _tensors(path: Path, files: list[Path]) -> set[str]:
    """The names of all tensors in the files; no two files may have the same one."""
    owners: dict[str, Path] = {}
    for file in files:
        for name in read_safetensors_header(file).keys() - {"__metadata__"}:
            other = owners.setdefault(name, file)
            if other is not file:
                message = f"{other.name} and {file.name} both have {name}, and no index decides"
                raise ModelLoadError(f"{path.name} cannot be loaded: {message}")
    return set(owners)


@contextmanager
def folder_with_only(path: Path, files: list[Path]) -> Iterator[Path]:
    """The folder as mlx_lm should read it: ``path``, or one with links if it has other weights."""
    if files == sorted(path.glob(_PATTERN)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mgs-weights-") as name:
        view = Path(name)
        for file in path.iterdir():
            if file.is_file() and file.suffix != ".safetensors":
                (view / file.name).symlink_to(file.resolve())
        for number, file in enumerate(files):
            (view / f"model-{number:05}.safetensors").symlink_to(file.resolve())
        yield view


def check_safetensors(file: Path) -> None:
    """Raise ``ModelLoadError`` unless the file is as long as its header says."""
    read_safetensors_header(file)


def read_safetensors_header(file: Path) -> Json:
    """The header of a safetensors file; ``ModelLoadError`` if the file is truncated."""
    if not file.is_file():  # to read a pipe would wait for ever
        raise ModelLoadError(f"{file.name} is not a file")
    size = file.stat().st_size
    with file.open("rb") as stream:
        num_header = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if num_header > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ModelLoadError(f"{file.name} is not a safetensors file, or it is truncated")
        header = stream.read(num_header)
    entries, num_data = _parse_header(file.name, header)
    if size < _LENGTH_BYTES + num_header + num_data:
        raise ModelLoadError(f"{file.name} is truncated: it has only {size} bytes")
    return entries


def _parse_header(name: str, header: bytes) -> tuple[Json, int]:
    """The entries, and the length in bytes of the data that they describe."""
    try:
        entries: Json = json.loads(header)
        ends = [_end(entry) for key, entry in entries.items() if key != "__metadata__"]
        return entries, max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{name} has a broken safetensors header") from error


def _end(entry: Any) -> int:
    """Where the data of a tensor ends; ``ValueError`` if it has not the length of its shape."""
    start, end = entry["data_offsets"]
    bits = _BITS.get(entry["dtype"])
    num_bits = 8 * (end - start)
    if start < 0 or num_bits < 0 or (bits and math.prod(entry["shape"]) * bits != num_bits):
        raise ValueError("a tensor has not the length of its shape")
    return int(end)
