"""KV state that outlives memory and the process: long prefixes in a folder of files.

The engine's thread packs and reads; a thread of its own writes, and deletes what is too much. The
files are found by their headers when the engine starts. Several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from jobs.contract.errors import ModelLoadError
from workers.engines.mlx.cache import kv, spill_file
from workers.engines.mlx.cache.prefix_index import StateIndex
from workers.engines.mlx.cache.prompt_cache import Entry, Match, StateLostError
from workers.engines.mlx.cache.spill_file import BrokenSpillError, SpillHeader
from workers.engines.mlx.cache.spill_writer import SpillWriter
from workers.engines.mlx.cache.token_key import num_tokens
from workers.engines.mlx.library import PromptCache

# Fewer are computed sooner than written and read.
MIN_SPILLED = 256
_MAX_BYTES = 8 << 30
# A worker that is asked to stop has a few seconds.
_CLOSE_S = 2.0

log = logging.getLogger(__name__)


class Spill:
    """The spilled states of one model, ``identity``, in a folder of at most ``max_bytes``."""

    def __init__(self, folder: Path, identity: str, max_bytes: int = _MAX_BYTES) -> None:
        """Raises ``ModelLoadError`` when the folder cannot be used."""
        self._folder = folder
        self._identity = identity
        self._index = StateIndex()
        self._pending: set[bytes] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_half_written()
            self._read_index()
        except OSError as error:
            message = f"the folder for spilled prompts cannot be used: {error}"
            raise ModelLoadError(message, "prompt_cache_dir") from error
        self._writer = SpillWriter(folder, max_bytes)

    def find(self, key: bytes, max_tokens: int, num_cached: int) -> Match | None:
        """The longest beginning of ``key`` on disk, if worth reading beyond ``num_cached``."""
        self._note_written()
        found = self._index.longest(key, max_tokens)
        if found is None or found[1] < num_cached + MIN_SPILLED:
            return None
        spilled, num = found
        return Match(num, lambda: kv.prefix(self._take(spilled), num))

    def put(self, entry: Entry) -> None:
        """Write a state soon, unless it is short, there already, or the disk is behind."""
        self._put(entry, timeout_s=0.0)

    def close(self, entries: Iterable[Entry]) -> None:
        """Write these too, in this order, as far as the time allows, and end."""
        end = time.monotonic() + _CLOSE_S
        for entry in entries:
            self._put(entry, timeout_s=max(0.0, end - time.monotonic()))
        self._writer.close(max(0.0, end - time.monotonic()))

    def _put(self, entry: Entry, timeout_s: float) -> None:
        self._note_written()
        if not self._is_wanted(entry.key) or not self._writer.wait_for_room(timeout_s):
            return
        header = SpillHeader(self._identity, entry.key, entry.can_trim)
        try:
            state = spill_file.pack(header, kv.prefix(entry.cache, num_tokens(entry.key)))
        except (TypeError, KeyError) as error:  # a model's cache that is not like the others
            log.warning("prompt cannot be spilled", extra={"why": repr(error)})
            return
        shorter = self._index.beginnings(entry.key) if entry.can_trim else []
        replaced = [self._path(key) for key in shorter]
        self._pending.add(entry.key)
        self._writer.write(header, self._path(entry.key), state, replaced)

    def _is_wanted(self, key: bytes) -> bool:
        is_there = key in self._pending or self._index.covering(key) is not None
        return num_tokens(key) >= MIN_SPILLED and not is_there

    def _note_written(self) -> None:
        """Add to the index what the other thread has written since."""
        for header, is_written in self._writer.results():
            self._pending.discard(header.key)
            if is_written:
                self._add(header)

    def _add(self, header: SpillHeader) -> None:
        if header.can_trim:
            for shorter in self._index.beginnings(header.key):
                self._index.remove(shorter)
        if header.key not in self._index:
            self._index.add(header.key, can_trim=header.can_trim)

    def _take(self, key: bytes) -> PromptCache:
        path = self._path(key)
        try:
            cache = spill_file.read_cache(path)
            os.utime(path)  # the least recently used are deleted first
        except (OSError, BrokenSpillError) as error:
            log.warning("spilled prompt is lost", extra={"file": path.name, "why": str(error)})
            if key in self._index:
                self._index.remove(key)
            path.unlink(missing_ok=True)
            raise StateLostError from error
        return cache

    def _path(self, key: bytes) -> Path:
        digest = hashlib.blake2b(self._identity.encode() + key, digest_size=20).hexdigest()
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
            if header.identity == self._identity and path == self._path(header.key):
                self._add(header)

    def _remove_half_written(self) -> None:
        for pid, path in spill_file.temporaries(self._folder):
            if pid == os.getpid() or not psutil.pid_exists(pid):
                path.unlink(missing_ok=True)
