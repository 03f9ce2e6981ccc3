"""Where the state of a prompt is kept if it cannot be cut afterwards: recurrent state, a window."""

from __future__ import annotations

from workers.engines.base import Sequence

# Tokens at a prompt's end that may open the answer, if nobody has counted them: enough for the
# header of a message and the marks of empty thoughts.
_UNKNOWN_OPENING = 9
MIN_SAVED = 64  # tokens that a state must save; to read fewer is cheaper than to copy it


def checkpoint_of(sequence: Sequence) -> int:
    """After how many tokens the state is kept, for the same prompt and for the next turn.

    Before the tokens that open the answer, since a later turn may leave them out, for example
    those that open the thoughts; at least before the last one, whose logits are needed.
    """
    num_opening = _UNKNOWN_OPENING if sequence.num_opening is None else sequence.num_opening
    return len(sequence.prompt) - max(1, num_opening)
