"""What can be done with the sequences of a model's memory, asked of llama.cpp itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryTraits:
    """Found at load by trying it on the context (``load/trial.py``), whatever the architecture.

    ``can_cut``: tokens can be removed from the end of a sequence; not with recurrent state, which
    is overwritten. ``window``: tokens of the sliding window, 0 if there is none; behind it, tokens
    may be gone. ``can_idle``: sequences can stay in the cells that are not decoded. ``can_batch``:
    several are computed in one pass as each alone; some versions of llama.cpp fail in that.
    """

    can_cut: bool = True
    window: int = 0
    can_idle: bool = True
    can_batch: bool = True

    @property
    def can_cut_anywhere(self) -> bool:
        """Whether the state of a text contains the state of each of its beginnings."""
        return self.can_cut and self.window == 0
