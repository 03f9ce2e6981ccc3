"""Commands in a prompt that make the fake engine fail.

``<<stall>>``: hang, from the submit on. ``<<crash>>``: kill the process. ``<<raise:step>>``: raise
in the whole step. ``<<raise:device>>``: raise ``DeviceLostError`` there. ``<<raise:draw>>``: raise
when this sequence's token is sampled. ``<<raise:piece>>``: raise in the tokenizer, when it returns
the bytes of that token. ``@n`` selects the n-th token of an attempt instead of the first:
``<<raise:draw@5>>``, ``<<stall@5>>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from workers.engines.failures import DeviceLostError

_RAISE = re.compile(rb"<<raise:(step|device|draw|piece)(?:@(\d{1,9}))?>>")
_STALL = re.compile(rb"<<stall@(\d{1,9})>>")


class Place(StrEnum):
    """Where an exception is raised."""

    STEP = "step"
    DEVICE = "device"
    DRAW = "draw"
    PIECE = "piece"


@dataclass(frozen=True, slots=True)
class Faults:
    """The commands in one prompt; tokens have numbers from 1.

    ``raises``: the token, by place. ``stalls_at``: the token in whose step the engine hangs.
    """

    has_crash: bool = False
    has_stall: bool = False
    stalls_at: int | None = None
    raises: dict[Place, int] = field(default_factory=dict)

    @staticmethod
    def of(prompt: Sequence[int]) -> Faults:
        text = bytes(token_id for token_id in prompt if token_id < 256)
        raises = {Place(found[1].decode()): int(found[2] or 1) for found in _RAISE.finditer(text)}
        stall = _STALL.search(text)
        stalls_at = None if stall is None else int(stall[1])
        return Faults(b"<<crash>>" in text, b"<<stall>>" in text, stalls_at, raises)

    def is_due(self, place: Place, num_generated: int) -> bool:
        """Whether the fault at ``place`` is due after ``num_generated`` tokens."""
        return self.raises.get(place) == num_generated + 1

    def check(self, place: Place, num_generated: int) -> None:
        """Raise the exception of the fault if it is due."""
        if self.is_due(place, num_generated):
            if place is Place.DEVICE:
                raise DeviceLostError("the prompt asked for it")
            raise RuntimeError(f"the prompt asked for a fault in the {place}")
