"""Options that change how steps are composed; ``cpu/tuning.py`` sets them for a CPU."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from workers.engines.llama_cpp.binding import Pointer


class Padding(Protocol):
    """Padding rows that make a short chunk of a prompt faster."""

    def num_missing(self, num_rows: int, num_before: int) -> int:
        """Rows to add to ``num_rows`` rows after ``num_before`` tokens; often 0."""


class PassAbort(Protocol):
    """Aborts a decode pass that is prefill only; ``llama_decode`` then returns 2."""

    def attach(self, context: Pointer) -> None:
        """Set the context whose decode passes it aborts."""

    def stop(self, sequence_id: int) -> None:
        """Abort the running pass if it is watched for this sequence; any thread may call it."""

    def watching(self, sequence_ids: Collection[int]) -> AbstractContextManager[None]:
        """``stop`` of any of these sequences aborts the pass that runs inside this context."""


@dataclass(frozen=True, slots=True)
class StepTuning:
    """``tile``: rows that are computed together. ``is_interleaved``: a decode pass does either
    prefill or decode, not both. ``padding`` and ``abort``: ``None`` if not used."""

    tile: int = 1
    padding: Padding | None = None
    is_interleaved: bool = False
    abort: PassAbort | None = None
