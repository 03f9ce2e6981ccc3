"""Facts for listings of models, read from their files and kept until these change.

A GGUF header with a large vocabulary takes some 50 ms to read. So the facts are also kept in a
file, and one listing reads new ones for a limited time only; the next ones read the rest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from jobs.catalog.entry import ModelEntry
from jobs.catalog.facts import mlx
from jobs.catalog.facts.gguf import first_gguf_facts, gguf_facts
from jobs.catalog.facts.mlx import trained_length
from jobs.catalog.facts.model_facts import ModelFacts
from jobs.contract.errors import ModelLoadError

__all__ = ["DiskFactsReader", "ModelFacts", "trained_length"]

_BUDGET_S = 1.0
_FORMAT = 1
_MLX_FILES = (mlx.CONFIG, mlx.TOKENIZER_CONFIG, *mlx.TEMPLATES, mlx.INDEX)

log = logging.getLogger(__name__)


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """Facts, and the times (ns) and sizes of the files that they are from."""

    version: tuple[int, ...]
    facts: ModelFacts


class _Kept(msgspec.Struct, frozen=True):
    """The file: facts by path."""

    known: dict[str, _Known]
    format: int = _FORMAT


class DiskFactsReader:
    """Keeps the facts of each model until its files change. Thread-safe.

    ``file``: where they outlive the process; several processes may share it. ``budget_s``: how long
    one listing reads.
    """

    def __init__(self, file: Path | None = None, budget_s: float = _BUDGET_S) -> None:
        self._file = file
        self._budget_s = budget_s
        self._known = _load(file) if file is not None else {}

    def read(self, entry: ModelEntry) -> ModelFacts:
        """The facts of a model in the catalog."""
        return self._read(entry, is_reading=True)

    def read_all(self, entries: Iterable[ModelEntry]) -> list[ModelFacts]:
        """The facts of each. When the time is over, only those that are known or quickly read."""
        deadline = time.monotonic() + self._budget_s
        before = dict(self._known)
        found = [self._read(one, is_reading=time.monotonic() < deadline) for one in entries]
        if self._known != before:
            self._save()
        return found

    def _read(self, entry: ModelEntry, *, is_reading: bool) -> ModelFacts:
        version = _version(entry)
        if not version:  # deleted since the listing, or the fake engine, which has no file
            return ModelFacts()
        known = self._known.get(str(entry.path))
        if known is not None and known.version == version:
            facts = known.facts
        else:
            found = _facts(entry) if is_reading else _first_facts(entry)
            facts = msgspec.structs.replace(found, modified_at=version[0] // 10**9)
            if is_reading:
                self._known[str(entry.path)] = _Known(version, facts)
        return _with_projector(entry, facts)

    def _save(self) -> None:
        if self._file is None:
            return
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            draft.write_bytes(msgspec.json.encode(_Kept(dict(self._known))))
            draft.replace(self._file)
        except OSError as error:
            log.warning("facts of models cannot be kept", extra={"error": str(error)})


def _load(file: Path) -> dict[str, _Known]:
    """The facts that were kept; none if the file is missing, of another format or broken."""
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
    except (OSError, msgspec.DecodeError):
        return {}
    return kept.known if kept.format == _FORMAT else {}


def _version(entry: ModelEntry) -> tuple[int, ...]:
    """Times and sizes of the files that say the facts, empty if the first is not there."""
    path = str(entry.path)
    files = [f"{path}/{name}" for name in _MLX_FILES] if entry.backend == "mlx" else [path]
    version: list[int] = []
    for file in files:
        try:
            state = os.stat(file)
        except OSError:
            if not version:
                return ()
            version += (0, 0)
        else:
            version += (state.st_mtime_ns, state.st_size)
    return tuple(version)


def _first_facts(entry: ModelEntry) -> ModelFacts:
    """What can be read at once."""
    return ModelFacts() if entry.backend == "mlx" else _tried(first_gguf_facts, entry)


def _facts(entry: ModelEntry) -> ModelFacts:
    return _tried(mlx.mlx_facts if entry.backend == "mlx" else gguf_facts, entry)


def _tried(read: Callable[[Path], ModelFacts], entry: ModelEntry) -> ModelFacts:
    try:
        return read(entry.path)
    except (ModelLoadError, OSError, ValueError, AttributeError, RecursionError):
        return ModelFacts()  # one broken file must not break the listing


def _with_projector(entry: ModelEntry, facts: ModelFacts) -> ModelFacts:
    if entry.projector is None or "image" in facts.input_kinds:
        return facts
    return msgspec.structs.replace(facts, input_kinds=(*facts.input_kinds, "image"))
