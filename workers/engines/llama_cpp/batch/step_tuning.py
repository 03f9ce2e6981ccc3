"""What may change how steps are put together; what changes it is elsewhere (``cpu/tuning.py``)."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from workers.engines.llama_cpp.binding import Pointer


class Padding(Protocol):
    """Rows of no use that make a short piece of a prompt sooner done."""

    def num_missing(self, num_rows: int, num_before: int) -> int:
        """How many rows to add to these, which stand after ``num_before`` tokens; often 0."""


class PassAbort(Protocol):
    """Breaks off a decode pass that only reads; ``llama_decode`` then returns 2."""

    def attach(self, context: Pointer) -> None:
        """The context whose passes it breaks off from now on."""

    def stop(self, sequence_id: int) -> None:
        """Break off the pass at hand if it is watched for this sequence. Any thread may."""

    def watching(self, sequence_ids: Collection[int]) -> AbstractContextManager[None]:
        """The pass within may be broken off for the sake of each of these sequences."""


@dataclass(frozen=True, slots=True)
class StepTuning:
    """``tile``: rows that are computed together; the end of a prompt goes into the last one.

    ``is_interleaved``: a pass reads prompts or decodes, not both.
    """

    tile: int = 1
    padding: Padding | None = None
    is_interleaved: bool = False
    abort: PassAbort | None = None
