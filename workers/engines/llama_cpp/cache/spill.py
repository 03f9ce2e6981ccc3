"""States on disk, so that a restart of the worker or of the machine keeps long prefixes.

One file per state: a line of JSON (what it belongs to), the token ids, the bytes. A file is written
under another name first, so that a crash leaves no half one under a good name; what is damaged all
the same is found by its length and checksum, and removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from workers.engines.llama_cpp.batch.decode_batch import IntArray

_SUFFIX = ".kv"
_UNFINISHED = ".part"
_LONGEST_HEADER = 4096

log = logging.getLogger(__name__)


class _Header(msgspec.Struct):
    model: str
    adapter: str | None
    num_tokens: int
    num_bytes: int
    checksum: int


@dataclass(frozen=True, eq=False, slots=True)
class SpilledState:
    """A state on disk; its bytes begin at ``offset`` of the file."""

    path: Path
    tokens: IntArray
    adapter: str | None
    offset: int
    num_bytes: int
    checksum: int


class Spill:
    """A folder of states, at most ``max_bytes`` of one model's; the least recently used leave.

    ``model`` says which model, cache type and library version they are good for. The folder may
    hold other models' states; those are left alone.
    """

    def __init__(self, folder: Path, model: str, max_bytes: int) -> None:
        self._folder = folder
        self._model = model
        self._prefix = hashlib.blake2b(model.encode(), digest_size=8).hexdigest()
        self._max_bytes = max_bytes
        self._states: dict[Path, SpilledState] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(folder.glob(f"{self._prefix}-*"), key=_age):
            self._note(path)

    @property
    def states(self) -> list[SpilledState]:
        """What there is, the least recently used first."""
        return list(self._states.values())

    def has(self, state: SpilledState | None) -> bool:
        return state is not None and state.path in self._states

    def write(
        self, tokens: IntArray, adapter: str | None, state: npt.NDArray[np.uint8]
    ) -> SpilledState | None:
        """Write a state; ``None`` when the disk refuses, which costs nothing but the file."""
        header = _Header(self._model, adapter, len(tokens), len(state), zlib.crc32(state.data))
        line = msgspec.json.encode(header) + b"\n"
        key = hashlib.blake2b(line + tokens.tobytes(), digest_size=16).hexdigest()
        path = self._folder / f"{self._prefix}-{key}{_SUFFIX}"
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            with os.fdopen(_open_private(unfinished), "wb") as file:
                file.write(line)
                file.write(tokens.astype("<i4").tobytes())
                file.write(state.data)
            unfinished.replace(path)
        except OSError as error:
            log.warning("a state cannot be written", extra={"error": str(error)})
            unfinished.unlink(missing_ok=True)
            return None
        offset = len(line) + 4 * len(tokens)
        written = SpilledState(path, tokens, adapter, offset, len(state), header.checksum)
        self._states[path] = written
        self._make_room(written)
        return written

    def read(self, state: SpilledState) -> npt.NDArray[np.uint8] | None:
        """The bytes of a state; ``None`` when the file is gone or damaged, which removes it."""
        try:
            found = np.fromfile(state.path, np.uint8, state.num_bytes, offset=state.offset)
            if zlib.crc32(found.data) != state.checksum:
                raise ValueError("wrong checksum")
            os.utime(state.path)
        except (OSError, ValueError) as error:
            log.warning("a state on disk is damaged", extra={"error": str(error)})
            self.remove(state)
            return None
        self._states[state.path] = self._states.pop(state.path)  # now the last used
        return found

    def remove(self, state: SpilledState) -> None:
        self._states.pop(state.path, None)
        state.path.unlink(missing_ok=True)

    def _make_room(self, spared: SpilledState) -> None:
        total = sum(state.num_bytes for state in self._states.values())
        for state in self.states:
            if total <= self._max_bytes:
                return
            if state is not spared:
                self.remove(state)
                total -= state.num_bytes

    def _note(self, path: Path) -> None:
        """Take a file of an earlier process into the index, or remove what is none."""
        state = None if path.suffix != _SUFFIX else self._indexed(path)
        if state is None:
            path.unlink(missing_ok=True)
        else:
            self._states[path] = state

    def _indexed(self, path: Path) -> SpilledState | None:
        try:
            with path.open("rb") as file:
                line = file.readline(_LONGEST_HEADER)
                header = msgspec.json.decode(line, type=_Header)
                tokens = np.frombuffer(file.read(4 * header.num_tokens), "<i4").astype(np.int32)
            offset = len(line) + 4 * header.num_tokens
            is_whole = path.stat().st_size == offset + header.num_bytes
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        if header.model != self._model or len(tokens) != header.num_tokens or not is_whole:
            return None
        return SpilledState(path, tokens, header.adapter, offset, header.num_bytes, header.checksum)


def _open_private(path: Path) -> int:
    """States hold what users have written."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
