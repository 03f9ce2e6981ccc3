"""Spilled KV states: long prefixes in a folder of files, which outlive memory and the process.

The engine's thread packs and reads states; ``SpillWriter``'s thread writes files and deletes old
ones. At start the index is read from the files' headers. Several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from jobs.contract.errors import ModelLoadError
from workers.engines.shared import spill_file
from workers.engines.shared.prefix_index import StateIndex
from workers.engines.shared.spill_file import BrokenSpillError, PackedState, SpillHeader
from workers.engines.shared.spill_writer import SpillWriter

_MAX_BYTES = 8 << 30
# A worker has only a few seconds to stop.
_CLOSE_S = 2.0
_OLD_SUFFIXES = (".kv", ".part", ".kv.safetensors")  # files of earlier versions

Pack = Callable[[], PackedState | None]
"""Returns the state as bytes, or ``None`` if the engine cannot do that."""

log = logging.getLogger(__name__)


class StateLostError(Exception):
    """A state that was found is gone; the caller looks again."""


class Spill:
    """Spilled states of one model, each of ``min_tokens`` or more, in at most ``max_bytes``.

    Computing fewer tokens is faster than writing and reading them. All identities of the model
    begin with ``model``; the folder may also hold states of other models.
    """

    def __init__(
        self, folder: Path, model: str, min_tokens: int, max_bytes: int = _MAX_BYTES
    ) -> None:
        """Raises ``ModelLoadError`` if the folder cannot be used."""
        self._folder = folder
        self._model = model
        self._min_tokens = min_tokens
        self._indexes: dict[str, StateIndex] = defaultdict(StateIndex)
        self._pending: set[tuple[str, bytes]] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_leftovers()
            self._read_index()
        except OSError as error:
            message = f"the folder for spilled prompts cannot be used: {error}"
            raise ModelLoadError(message, "prompt_cache_dir") from error
        self._writer = SpillWriter(folder, max_bytes)

    def find(
        self, identity: str, key: bytes, max_tokens: int, num_in_memory: int = 0
    ) -> tuple[SpillHeader, int] | None:
        """The state on disk with the longest prefix of ``key``, and the prefix's length.

        ``None`` unless it has ``min_tokens`` more than the ``num_in_memory`` that memory has.
        """
        self._note_written()
        index = self._indexes[identity]
        found = index.longest(key, max_tokens)
        if found is None or found[1] < num_in_memory + self._min_tokens:
            return None
        key, num = found
        return SpillHeader(identity, key, index.can_trim(key)), num

    def put(self, header: SpillHeader, pack: Pack) -> None:
        """Queue a state for writing, unless it is short, already there, or the disk is behind."""
        self._put(header, pack, timeout_s=0.0)

    def close(self, states: Iterable[tuple[SpillHeader, Pack]]) -> None:
        """Write these states too, in order, within a time limit; then end the thread."""
        end = time.monotonic() + _CLOSE_S
        for header, pack in states:
            self._put(header, pack, timeout_s=max(0.0, end - time.monotonic()))
        self._writer.close(max(0.0, end - time.monotonic()))

    def read(self, header: SpillHeader) -> PackedState:
        """The state. Raises ``StateLostError`` if the file is gone or damaged, and removes it."""
        path = self._path(header)
        try:
            state = spill_file.read(path)
            os.utime(path)  # the least recently used are deleted first
        except (OSError, BrokenSpillError) as error:
            self.discard(header, str(error))
            raise StateLostError from error
        return state

    def discard(self, header: SpillHeader, why: str) -> None:
        """Remove an unusable state; ``why`` goes into the log."""
        path, index = self._path(header), self._indexes[header.identity]
        log.warning("spilled prompt is lost", extra={"file": path.name, "why": why})
        if header.key in index:
            index.remove(header.key)
        path.unlink(missing_ok=True)

    def _put(self, header: SpillHeader, pack: Pack, timeout_s: float) -> None:
        self._note_written()
        if not self._is_wanted(header) or not self._writer.wait_for_room(timeout_s):
            return
        state = pack()
        if state is None:
            return
        replaced = [self._path(shorter) for shorter in self._covered_by(header)]
        self._pending.add((header.identity, header.key))
        self._writer.write(header, self._path(header), state, replaced)

    def _is_wanted(self, header: SpillHeader) -> bool:
        is_pending = (header.identity, header.key) in self._pending
        is_there = is_pending or self._indexes[header.identity].covering(header.key) is not None
        return header.num_tokens >= self._min_tokens and not is_there

    def _covered_by(self, header: SpillHeader) -> list[SpillHeader]:
        if not header.can_trim:
            return []
        index = self._indexes[header.identity]
        shorter = index.prefixes(header.key)
        return [SpillHeader(header.identity, key, index.can_trim(key)) for key in shorter]

    def _note_written(self) -> None:
        """Add to the index what the writer has written since the last call."""
        for header, is_written in self._writer.results():
            self._pending.discard((header.identity, header.key))
            if is_written:
                self._add(header)

    def _add(self, header: SpillHeader) -> None:
        index = self._indexes[header.identity]
        for shorter in self._covered_by(header):
            index.remove(shorter.key)
        if header.key not in index:
            index.add(header.key, can_trim=header.can_trim)

    def _path(self, header: SpillHeader) -> Path:
        whole = header.identity.encode() + header.key
        digest = hashlib.blake2b(whole, digest_size=20).hexdigest()
        return self._folder / f"{digest}{spill_file.SUFFIX}"

    def _read_index(self) -> None:
        for path in self._folder.glob(f"[!.]*{spill_file.SUFFIX}"):
            try:
                header = spill_file.read_header(path)
            except FileNotFoundError:
                continue  # deleted by another process
            except BrokenSpillError as error:
                log.warning("broken file removed", extra={"file": path.name, "why": str(error)})
                path.unlink(missing_ok=True)
                continue
            if header.identity.startswith(self._model) and path == self._path(header):
                self._add(header)

    def _remove_leftovers(self) -> None:
        for pid, path in spill_file.temporaries(self._folder):
            if pid == os.getpid() or not psutil.pid_exists(pid):
                path.unlink(missing_ok=True)
        for path in self._folder.iterdir():
            if path.name.endswith(_OLD_SUFFIXES):
                path.unlink(missing_ok=True)
