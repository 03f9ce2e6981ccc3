"""What models needed in memory, measured, for their next load. A file in the state folder."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from jobs.catalog.catalog import ModelEntry
from jobs.catalog.fingerprint import fingerprint
from jobs.contract.records import WorkerStatus
from jobs.contract.requests import GenerationDefaults, LoadRequest
from jobs.settings import Settings

_FILE = "memory.json"
_MAX_ENTRIES = 300
_GROWTH = 1.01  # less is not written: a heartbeat each second would write each second
_LIBRARIES = {"mlx": ("mlx", "mlx-lm"), "llama-cpp": ("llama-cpp-python",), "fake": ()}

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """The most bytes that were measured, and when they last grew, in epoch seconds."""

    num_bytes: int
    at: float


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """Names files, backend, its version and the options that memory depends on."""

    text: str

    @classmethod
    def of(cls, entry: ModelEntry, load: LoadRequest, settings: Settings) -> MemoryKey:
        """The key of a model that is loaded with these options; reads no file."""
        options = msgspec.structs.replace(load, defaults=GenerationDefaults(), chat_format=None)
        facts = [
            fingerprint(entry),
            str(entry.path),
            entry.backend,
            _versions(entry.backend),
            msgspec.json.encode(options).decode(),
            settings.slots,
            settings.prompt_cache_bytes,
            settings.cpu_tuning,
        ]
        return cls(hashlib.sha256(repr(facts).encode()).hexdigest()[:32])


@functools.cache
def _versions(backend: str) -> tuple[str, ...]:
    """Versions of the backend's libraries, without importing them."""
    return tuple(map(_version, _LIBRARIES.get(backend, ())))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def measured_bytes(status: WorkerStatus) -> int:
    """What the worker takes now without kept prompts, of which the engine gives up what it must."""
    return max(0, status.memory_bytes - status.prompt_cache_bytes)


class MemoryLedger:
    """The most memory that was measured, by key. One process writes, others may read.

    A file that cannot be read counts as empty, one that cannot be written is not an error: then
    the figures last as long as the process.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FILE
        self._read_at: int | None = None
        self._kept: dict[str, _Kept] = {}

    def get(self, key: MemoryKey) -> int | None:
        """Bytes; ``None`` if nothing was measured."""
        self._refresh()
        kept = self._kept.get(key.text)
        return None if kept is None else kept.num_bytes

    def note(self, key: MemoryKey, num_bytes: int) -> None:
        """Note a figure of ``measured_bytes``; only the largest one counts."""
        known = self.get(key)
        if num_bytes <= 0 or (known is not None and num_bytes < known * _GROWTH):
            return
        self._kept[key.text] = _Kept(num_bytes, time.time())
        if len(self._kept) > _MAX_ENTRIES:
            oldest = min(self._kept, key=lambda text: self._kept[text].at)
            del self._kept[oldest]
        self._write()

    def _refresh(self) -> None:
        """Read the file if it has changed."""
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._read_at = changed_at
                read = msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Kept])
                self._kept = {**read, **_newer(self._kept, read)}
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            extra = {"file": str(self._path), "error": str(error)}
            log.warning("measured memory cannot be read", extra=extra)

    def _write(self) -> None:
        draft = self._path.with_name(f".{_FILE}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(self._kept))
            draft.replace(self._path)
            self._read_at = self._path.stat().st_mtime_ns
        except OSError as error:
            extra = {"file": str(self._path), "error": str(error)}
            log.warning("measured memory cannot be written", extra=extra)


def _newer(own: dict[str, _Kept], read: dict[str, _Kept]) -> dict[str, _Kept]:
    """What this process knows and the file lacks, because it could not be written."""
    return {
        text: kept
        for text, kept in own.items()
        if text not in read or kept.num_bytes > read[text].num_bytes
    }
