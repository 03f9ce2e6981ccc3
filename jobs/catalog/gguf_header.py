"""Reads the metadata at the start of a GGUF file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. It is pure Python and reads no
tensor data, so the catalog can use it too. Every count in the file is checked before it is used.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jobs.contract.errors import ModelLoadError

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)

# Limits far above any real model (about 60 keys, 2,000 tensors, 100 KB chat templates).
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_STRING_BYTES = 1 << 24
MAX_ARRAY_LENGTH = 1 << 28
MAX_ARRAY_DEPTH = 4

Value = str | int | float | bool

_STRING_TYPE = 8
ARRAY_TYPE = 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
U32 = _SCALARS[4]
U64 = _SCALARS[10]
WHOLE_TYPES = frozenset(_SCALARS) - {6, 12}  # without the floating-point ones

# ``enum llama_ftype`` of llama.h.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

_BLOCK_BYTES = 1 << 20
_CONTEXT_LENGTH = ".context_length"
_TOKENIZER = "tokenizer."
_PART_NAME = re.compile(r"(?P<prefix>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata of one GGUF file without its arrays (vocabulary, merges)."""

    version: int
    num_tensors: int
    metadata: Mapping[str, Value]

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        return self._text("general.name")

    @property
    def chat_template(self) -> str | None:
        return self._text("tokenizer.chat_template") or None

    @property
    def context_length(self) -> int | None:
        """Longest sequence that the model supports, in tokens."""
        return self.count(f"{self.architecture}{_CONTEXT_LENGTH}")

    @property
    def quantization(self) -> str:
        """The file type as usually written (``Q4_K_M``), "" when the file has none."""
        file_type = self.count("general.file_type")
        return "" if file_type is None else _FILE_TYPES.get(file_type, f"type {file_type}")

    @property
    def num_parts(self) -> int:
        return self.count("split.count") or 1

    @property
    def part(self) -> int:
        """Number of this part of a split model, from 0."""
        return self.count("split.no") or 0

    def count(self, key: str) -> int | None:
        """The integer under ``key``, ``None`` when it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of ``path``. Raises ``ModelLoadError`` that names the problem."""
    try:
        with path.open("rb") as file:
            return GgufScanner(file, path).read()
    except OSError as error:
        raise ModelLoadError(f"{path.name}: cannot be read: {error.strerror}") from error


def read_gguf_start(path: Path) -> GgufHeader:
    """The header up to the tokenizer's keys, which are long. Raises ``ModelLoadError``."""
    try:
        with path.open("rb") as file:
            return GgufScanner(file, path).read_start()
    except OSError as error:
        raise ModelLoadError(f"{path.name}: cannot be read: {error.strerror}") from error


def split_parts(path: Path, num_parts: int) -> list[Path]:
    """Paths of all parts, in order, of the split model of which ``path`` is one part."""
    match = _PART_NAME.fullmatch(path.name)
    if match is None:
        message = (
            f"{path.name}: one of {num_parts} parts, not named '…-00001-of-{num_parts:05}.gguf'"
        )
        raise ModelLoadError(message)
    prefix = match["prefix"]
    return [
        path.with_name(f"{prefix}-{part:05}-of-{num_parts:05}.gguf")
        for part in range(1, num_parts + 1)
    ]


class GgufScanner:
    """One pass over the header of an open file; ``jobs/memory/formats/gguf_file.py`` reads on."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._name = path.name
        self._size = path.stat().st_size

    def read(self) -> GgufHeader:
        version = self._check_preamble()
        num_tensors = self._bounded(self._number(U64), MAX_TENSORS, "tensors")
        return GgufHeader(version, num_tensors, dict(self._metadata()))

    def read_start(self) -> GgufHeader:
        version = self._check_preamble()
        num_tensors = self._bounded(self._number(U64), MAX_TENSORS, "tensors")
        return GgufHeader(version, num_tensors, dict(self._metadata(end=_TOKENIZER)))

    def _metadata(self, end: str | None = None) -> Iterator[tuple[str, Value]]:
        """Keys and values up to the first key that starts with ``end``."""
        num_keys = self._bounded(self._number(U64), MAX_KEYS, "metadata keys")
        for _ in range(num_keys):
            key = self._string()
            if end is not None and key.startswith(end):
                return
            value = self._value(self._number(U32))
            if value is not None:
                yield key, value

    def _check_preamble(self) -> int:
        magic = self._file.read(len(MAGIC))
        if not magic:
            raise self._error("the file is empty")
        if magic != MAGIC:
            raise self._error(f"not a GGUF file (it begins with {magic!r})")
        version = self._number(U32)
        if version & 0xFFFF == 0:  # 3 written by a big-endian machine reads as 0x03000000
            raise self._error("a big-endian GGUF file, which is not supported")
        if version not in SUPPORTED_VERSIONS:
            raise self._error(f"GGUF version {version} is not supported")
        return version

    def _value(self, kind: int) -> Value | None:
        """Read one metadata value. Arrays are skipped and give ``None``."""
        if kind == _STRING_TYPE:
            return self._string()
        if kind == ARRAY_TYPE:
            self._skip_array(depth=1)
            return None
        value: Value = self._number(self._scalar(kind))
        return value

    def _skip_array(self, depth: int) -> None:
        if depth > MAX_ARRAY_DEPTH:
            raise self._error("metadata arrays are nested too deeply")
        self._skip_elements(*self._array_head(), depth)

    def _array_head(self) -> tuple[int, int]:
        """Type and number of the elements of an array."""
        kind = self._number(U32)
        return kind, self._bounded(self._number(U64), MAX_ARRAY_LENGTH, "elements of an array")

    def _skip_elements(self, kind: int, length: int, depth: int) -> None:
        if kind == _STRING_TYPE:
            self._skip_strings(length)
        elif kind == ARRAY_TYPE:
            for _ in range(length):
                self._skip_array(depth + 1)
        else:
            self._skip(length * self._scalar(kind).size)

    def _skip_strings(self, count: int) -> None:
        """A vocabulary: a call for each string would take three times as long."""
        while count:
            block = self._file.read(_BLOCK_BYTES)
            num_done, num_bytes = _whole_strings(block, count)
            count -= num_done
            if num_done == 0 or self._file.tell() - len(block) + num_bytes > self._size:
                raise self._cut_off()
            self._file.seek(num_bytes - len(block), 1)

    def _string(self) -> str:
        length = self._bounded(self._number(U64), MAX_STRING_BYTES, "bytes of a string")
        # Some published files have invalid UTF-8 here. It must not hide the model.
        return self._bytes(length).decode("utf-8", errors="replace")

    def _number(self, form: struct.Struct) -> int:
        number: int = form.unpack(self._bytes(form.size))[0]
        return number

    def _bytes(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise self._cut_off()
        return data

    def _skip(self, length: int) -> None:
        # Seeking past the end succeeds silently, so compare first.
        if length > self._size or self._file.seek(length, 1) > self._size:
            raise self._cut_off()

    def _scalar(self, kind: int) -> struct.Struct:
        if kind not in _SCALARS:
            raise self._error(f"metadata of unknown type {kind}: the header is damaged")
        return _SCALARS[kind]

    def _bounded(self, number: int, limit: int, what: str) -> int:
        if number > limit:
            raise self._error(f"claims {number} {what} (limit {limit}): the header is damaged")
        return number

    def _cut_off(self) -> ModelLoadError:
        return self._error(f"the file is cut off inside its header ({self._size} bytes)")

    def _error(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{self._name}: {reason}")


def _whole_strings(block: bytes, count: int) -> tuple[int, int]:
    """Up to ``count`` strings that begin in the block: how many, and the bytes to behind them."""
    length_at, size = U64.unpack_from, U64.size
    place = number = 0
    try:
        for number in range(count):  # noqa: B007
            place += size + length_at(block, place)[0]
    except (struct.error, OverflowError):  # the place is behind the block
        return number, place
    return count, place
