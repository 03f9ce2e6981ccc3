"""Facts for listings of models, read from the headers of their files and cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.catalog.catalog import ModelEntry
from jobs.catalog.gguf_header import read_gguf_context_length
from jobs.contract.errors import ModelLoadError


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """Modification time of the model's file (epoch seconds) and context length (tokens).

    ``context_length`` is ``None`` when the file has none or cannot be read. Loading the model then
    reports the reason.
    """

    modified_at: int = 0
    context_length: int | None = None


class DiskFactsReader:
    """Caches the facts of each file until the file changes. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], DiskFacts]] = {}

    def read(self, entry: ModelEntry) -> DiskFacts:
        """The facts of a model in the catalog."""
        file = entry.path / "config.json" if entry.backend == "mlx" else entry.path
        try:
            state = file.stat()
        except OSError:  # deleted since the listing, or the fake engine, which has no file
            return DiskFacts()
        version = (state.st_mtime_ns, state.st_size)
        known = self._known.get(file)
        if known is None or known[0] != version:
            facts = DiskFacts(int(state.st_mtime), _context_length(entry.backend, file))
            self._known[file] = known = (version, facts)
        return known[1]


def _context_length(backend: str, file: Path) -> int | None:
    try:
        if backend == "llama-cpp":
            return read_gguf_context_length(file)
        return trained_length(json.loads(file.read_text(encoding="utf-8")))
    except (ModelLoadError, OSError, ValueError, AttributeError, RecursionError):
        return None  # one broken file must not break the listing


def trained_length(config: Mapping[str, Any]) -> int | None:
    """The context length in a model's config.json, in tokens."""
    found = [config, config.get("text_config") or {}]
    names = ("max_position_embeddings", "n_positions")
    lengths = (one.get(name) for one in found for name in names)
    return next((length for length in lengths if type(length) is int and length > 0), None)
