"""One KV state in a file: a header line of JSON, then the state's bytes.

A file is written under a temporary name and renamed when it is complete. Length and checksum
reveal a damaged one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from workers.engines.shared.token_key import num_tokens

SUFFIX = ".kvstate"
_LONGEST_HEADER = 64 << 20

Bytes = npt.NDArray[np.uint8]


class BrokenSpillError(Exception):
    """The file is damaged or not a spilled state."""


class SpillHeader(msgspec.Struct, frozen=True):
    """What a spilled state belongs to.

    ``identity``: digest of model, adapter and all else it depends on. ``key``: its tokens
    (``token_key``). ``can_trim``: it can be cut to any prefix.
    """

    identity: str
    key: bytes
    can_trim: bool

    @property
    def num_tokens(self) -> int:
        return num_tokens(self.key)


class PackedState(msgspec.Struct, frozen=True):
    """A KV state as bytes; ``facts`` is the engine's own metadata, any JSON value."""

    facts: Any
    parts: list[Bytes]

    @property
    def num_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


class _Line(msgspec.Struct, frozen=True):
    header: SpillHeader
    facts: Any
    sizes: list[int]
    checksum: int


def write(path: Path, header: SpillHeader, state: PackedState) -> None:
    """Write a state. Raises ``OSError`` when the disk refuses, and leaves no file then."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    sizes = [part.nbytes for part in state.parts]
    line = msgspec.json.encode(_Line(header, state.facts, sizes, _checksum(state.parts)))
    try:
        # Only the owner may read it: the tokens are users' texts.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(line + b"\n")
            for part in state.parts:
                stream.write(part.data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporaries(folder: Path) -> Iterable[tuple[int, Path]]:
    """Incomplete files, as (process id of the writer, path)."""
    for path in folder.glob(f".*-*{SUFFIX}"):
        pid = path.name[1:].partition("-")[0]
        if pid.isdecimal():
            yield int(pid), path


def read_header(path: Path) -> SpillHeader:
    """Raises ``BrokenSpillError`` for an incomplete file, ``OSError`` for a missing one."""
    line, offset = _read_line(path)
    if path.stat().st_size != offset + sum(line.sizes):
        raise BrokenSpillError(f"{path.name} is incomplete")
    return line.header


def read(path: Path) -> PackedState:
    """The state; raises like ``read_header``, also for a wrong checksum."""
    line, offset = _read_line(path)
    parts = []
    for size in line.sizes:
        parts.append(np.fromfile(path, np.uint8, size, offset=offset))
        offset += size
    if [part.nbytes for part in parts] != line.sizes or _checksum(parts) != line.checksum:
        raise BrokenSpillError(f"{path.name} is damaged")
    return PackedState(line.facts, parts)


def _read_line(path: Path) -> tuple[_Line, int]:
    with path.open("rb") as stream:
        text = stream.readline(_LONGEST_HEADER)
    try:
        return msgspec.json.decode(text, type=_Line), len(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BrokenSpillError(f"{path.name}: {error}") from error


def _checksum(parts: Iterable[Bytes]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part.data, checksum)
    return checksum
