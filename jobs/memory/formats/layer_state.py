"""What the layers of a model keep of a sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class LayerState:
    """The state of one layer for one sequence.

    ``per_token``: values kept for each token, keys and values together; ``window``: for so many
    tokens at most. ``fixed``: values of a recurrent state, which are float32.
    """

    per_token: int = 0
    window: int | None = None
    fixed: int = 0

    def num_values(self, num_tokens: int) -> int:
        """Values kept of that many tokens, without the fixed ones."""
        held = num_tokens if self.window is None else min(num_tokens, self.window)
        return self.per_token * held


def fixed_bytes(layers: Iterable[LayerState]) -> int:
    """Size of the recurrent states of one sequence."""
    return _FLOAT32 * sum(layer.fixed for layer in layers)


def values_per_token(layers: Iterable[LayerState]) -> int:
    """Keys and values that one more token needs, in the layers without a window."""
    return sum(layer.per_token for layer in layers if layer.window is None)
