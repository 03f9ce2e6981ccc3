"""One spilled KV state: a safetensors file that names its model and its tokens in the header.

Packed on the engine's thread, written without MLX on any; under its final name it is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from jobs.contract.errors import ModelLoadError
from workers.engines.mlx.cache import kv
from workers.engines.mlx.library import PromptCache
from workers.engines.mlx.load.folder import read_safetensors_header

SUFFIX = ".kv.safetensors"
_TYPE_NAMES = {
    mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.bool_: "BOOL",
    mx.uint8: "U8", mx.uint16: "U16", mx.uint32: "U32", mx.int32: "I32", mx.int64: "I64",
}  # fmt: skip
_ALIGNMENT = 8


class BrokenSpillError(Exception):
    """The file is not a whole spilled state."""


@dataclass(frozen=True, slots=True)
class SpillHeader:
    """``identity`` names the model, ``key`` the tokens (``token_key``); as in ``StateIndex``."""

    identity: str
    key: bytes
    can_trim: bool


@dataclass(frozen=True, slots=True)
class PackedState:
    """What is to be written: no MLX array is in it."""

    header: bytes
    parts: list[NDArray[Any]]

    @property
    def num_bytes(self) -> int:
        return len(self.header) + sum(part.nbytes for part in self.parts)


def pack(header: SpillHeader, cache: PromptCache) -> PackedState:
    """A copy of the state; waits for the device. ``TypeError`` for one that JSON cannot hold."""
    arrays: list[mx.array] = []
    layers = [[type(layer).__name__, _flatten(layer.state, arrays)] for layer in cache]
    mx.eval(arrays)
    entries: dict[str, Any] = {"__metadata__": _metadata(header, layers)}
    end = 0
    for name, array in enumerate(arrays):
        start, end = end, end + array.nbytes
        shape = list(array.shape)
        kind = _TYPE_NAMES[array.dtype]
        entries[str(name)] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return PackedState(len(text).to_bytes(8, "little") + text, [_to_host(a) for a in arrays])


def _metadata(header: SpillHeader, layers: list[Any]) -> dict[str, str]:
    return {
        "identity": header.identity,
        "key": header.key.hex(),
        "can_trim": json.dumps(header.can_trim),
        "layers": json.dumps(layers),
    }


def _flatten(state: Any, arrays: list[mx.array]) -> Any:
    """The state as JSON, with ``{"array": number}`` for each array."""
    if isinstance(state, mx.array):
        arrays.append(state)
        return {"array": len(arrays) - 1}
    if isinstance(state, list | tuple):
        return [_flatten(part, arrays) for part in state]
    return state


def _to_host(array: mx.array) -> NDArray[Any]:
    # numpy has no bfloat16.
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def write(path: Path, state: PackedState) -> None:
    """Write under another name, then rename: a crash leaves no half file under ``path``."""
    temporary = path.with_name(f"{_temporary_prefix(os.getpid())}{path.name}")
    try:
        # For the owner alone: the tokens are what people wrote.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(state.header)
            for part in state.parts:
                stream.write(np.ascontiguousarray(part).data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_prefix(pid: int) -> str:
    return f".{pid}-"


def temporaries(folder: Path) -> Iterable[tuple[int, Path]]:
    """Files that are being written, or never were to the end: (process, path)."""
    for path in folder.glob(f".*-*{SUFFIX}"):
        pid = path.name[1:].partition("-")[0]
        if pid.isdecimal():
            yield int(pid), path


def read_header(path: Path) -> SpillHeader:
    """Raises ``BrokenSpillError`` unless the file is whole, ``OSError`` if it is not there."""
    found = _read_metadata(path)
    try:
        key, can_trim = bytes.fromhex(found["key"]), json.loads(found["can_trim"])
        return SpillHeader(str(found["identity"]), key, bool(can_trim))
    except (KeyError, ValueError, TypeError) as error:
        raise BrokenSpillError(f"{path.name}: {error!r}") from error


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        metadata = read_safetensors_header(path).get("__metadata__")
    except ModelLoadError as error:
        raise BrokenSpillError(error.message) from error
    if not isinstance(metadata, dict):
        raise BrokenSpillError(f"{path.name} has no metadata")
    return metadata


def read_cache(path: Path) -> PromptCache:
    """The state, in memory; raises as ``read_header``."""
    metadata = _read_metadata(path)
    try:
        arrays = cast(dict[str, mx.array], mx.load(str(path)))
        layers = json.loads(metadata["layers"])
        cache = [kv.layer_of(name, _unflatten(state, arrays)) for name, state in layers]
        mx.eval(kv.arrays(cache))
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise BrokenSpillError(f"{path.name}: {error!r}") from error
    return cache


def _unflatten(state: Any, arrays: dict[str, mx.array]) -> Any:
    if isinstance(state, dict):
        return arrays[str(state["array"])]
    if isinstance(state, list):
        return [_unflatten(part, arrays) for part in state]
    return state
