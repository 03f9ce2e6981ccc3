"""What a prompt can ask the fake engine to do wrong.

``<<stall>>``: stop for ever. ``<<crash>>``: kill the process. ``<<raise:step>>``: an exception of
the whole step; ``<<raise:draw>>``: in the draw of this sequence's token; ``<<raise:piece>>``: in
the tokenizer, when it is asked for that token's bytes. ``@n`` means the n-th token instead of the
first: ``<<raise:draw@5>>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_RAISE = re.compile(rb"<<raise:(step|draw|piece)(?:@(\d{1,9}))?>>")


class Place(StrEnum):
    """Where an exception is raised."""

    STEP = "step"
    DRAW = "draw"
    PIECE = "piece"


@dataclass(frozen=True, slots=True)
class Faults:
    """What one prompt asks for; ``raises``: the number of the token by place, from 1."""

    has_crash: bool = False
    has_stall: bool = False
    raises: dict[Place, int] = field(default_factory=dict)

    @staticmethod
    def of(prompt: Sequence[int]) -> Faults:
        text = bytes(token_id for token_id in prompt if token_id < 256)
        raises = {Place(found[1].decode()): int(found[2] or 1) for found in _RAISE.finditer(text)}
        return Faults(b"<<crash>>" in text, b"<<stall>>" in text, raises)

    def is_due(self, place: Place, num_generated: int) -> bool:
        """Whether it comes with the token after so many."""
        return self.raises.get(place) == num_generated + 1

    def check(self, place: Place, num_generated: int) -> None:
        """Raise, if it is due."""
        if self.is_due(place, num_generated):
            raise RuntimeError(f"the prompt asked for a fault in the {place}")
