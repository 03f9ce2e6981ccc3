"""Reads what is needed for an estimate from a GGUF file: numbers per layer, sizes of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.catalog.gguf_header import (
    ARRAY_TYPE,
    MAX_KEYS,
    MAX_TENSORS,
    U32,
    U64,
    WHOLE_TYPES,
    GgufHeader,
    GgufScanner,
    Value,
    split_parts,
)
from jobs.contract.errors import ModelLoadError

_MAX_NUMBERS = 1024  # llama.cpp has 512 layers at most
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """``shape``: the inner dimension first, as ggml has it. ``kind``: ``enum ggml_type``.

    ``num_bytes`` includes the padding behind it.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufModel:
    """All parts of one GGUF model. ``arrays``: short metadata arrays of whole numbers."""

    header: GgufHeader
    arrays: Mapping[str, tuple[int, ...]]
    tensors: tuple[GgufTensor, ...]

    def number(self, key: str, default: int = 0) -> int:
        """The number under the architecture's ``key``."""
        found = self.header.count(f"{self.header.architecture}.{key}")
        return default if found is None or found < 0 else found

    def per_layer(self, key: str, num_layers: int, default: int = 0) -> list[int]:
        """The numbers of all layers under ``key``, where the file has one, or one for all."""
        listed = self.arrays.get(f"{self.header.architecture}.{key}")
        if listed is None:
            return [self.number(key, default)] * num_layers
        return [*listed[:num_layers], *[default] * (num_layers - len(listed))]

    def array(self, key: str) -> tuple[int, ...] | None:
        """The array under the architecture's ``key``, if there is one."""
        return self.arrays.get(f"{self.header.architecture}.{key}")


def read_gguf_model(path: Path) -> GgufModel:
    """Read the headers of all parts. Raises ``ModelLoadError`` that names the problem."""
    first = _read(path)
    num_parts = first.header.num_parts
    others = split_parts(path, num_parts)[1:] if num_parts > 1 else []
    tensors = [*first.tensors, *(tensor for part in others for tensor in _read(part).tensors)]
    return GgufModel(first.header, first.arrays, tuple(tensors))


def _read(path: Path) -> GgufModel:
    try:
        with path.open("rb") as file:
            return _TensorScanner(file, path).read_model()
    except OSError as error:
        raise ModelLoadError(f"{path.name}: cannot be read: {error.strerror}") from error


class _TensorScanner(GgufScanner):
    """Also reads arrays of numbers, and the list of tensors after the metadata."""

    def read_model(self) -> GgufModel:
        version = self._check_preamble()
        num_tensors = self._bounded(self._number(U64), MAX_TENSORS, "tensors")
        metadata: dict[str, Value] = {}
        arrays: dict[str, tuple[int, ...]] = {}
        for _ in range(self._bounded(self._number(U64), MAX_KEYS, "metadata keys")):
            key, kind = self._string(), self._number(U32)
            if kind == ARRAY_TYPE:
                numbers = self._numbers()
                if numbers is not None:
                    arrays[key] = numbers
            elif (value := self._value(kind)) is not None:
                metadata[key] = value
        header = GgufHeader(version, num_tensors, metadata)
        return GgufModel(header, arrays, tuple(self._tensors(header)))

    def _numbers(self) -> tuple[int, ...] | None:
        """A short array of whole numbers or truth values; any other one is skipped."""
        kind, length = self._array_head()
        if length > _MAX_NUMBERS or kind not in WHOLE_TYPES:
            self._skip_elements(kind, length, depth=1)
            return None
        form = self._scalar(kind)
        return tuple(int(self._number(form)) for _ in range(length))

    def _tensors(self, header: GgufHeader) -> list[GgufTensor]:
        """Their sizes follow from the offsets: new types need no table of block sizes."""
        infos = sorted((self._info() for _ in range(header.num_tensors)), key=lambda info: info[3])
        if not infos:  # the first part of a split model may have none
            return []
        alignment = header.count("general.alignment") or _DEFAULT_ALIGNMENT
        start = math.ceil(self._file.tell() / alignment) * alignment
        ends = [*(info[3] for info in infos[1:]), max(0, self._size - start)]
        return [
            GgufTensor(name, shape, kind, max(0, end - offset))
            for (name, shape, kind, offset), end in zip(infos, ends, strict=True)
        ]

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        num_dimensions = self._bounded(self._number(U32), _MAX_DIMENSIONS, "dimensions")
        shape = tuple(self._number(U64) for _ in range(num_dimensions))
        return name, shape, self._number(U32), self._number(U64)
