"""GGUF files written byte by byte, sound or broken on purpose."""

from __future__ import annotations

import struct
from collections.abc import Mapping

Metadata = Mapping[str, str | int | float | bool | list[str] | list[int]]


def gguf_bytes(metadata: Metadata, *, version: int = 3, num_tensors: int = 0) -> bytes:
    """The header of a GGUF file; the tensors that it announces are not there."""
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, len(metadata))
    return head + b"".join(_string(key) + _value(value) for key, value in metadata.items())


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: str | int | float | bool | list[str] | list[int]) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<I", 9) + _array(value)


def _array(values: list[str] | list[int]) -> bytes:
    if values and isinstance(values[0], str):
        return struct.pack("<IQ", 8, len(values)) + b"".join(_string(str(v)) for v in values)
    return struct.pack(f"<IQ{len(values)}I", 4, len(values), *values)
