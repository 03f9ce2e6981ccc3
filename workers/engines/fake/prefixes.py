"""The prompt cache of the fake engine: it keeps tokens, but no state."""

from __future__ import annotations

from collections.abc import Iterable

NUM_KEPT = 16
_MIN_REUSED = 16  # tokens; fewer are not worth a copy

Tokens = list[int]


class KeptPrefixes:
    """The tokens of the last ``num_kept`` sequences, each with its adapter."""

    def __init__(self, num_kept: int = NUM_KEPT) -> None:
        self._num_kept = num_kept
        self._kept: list[tuple[str | None, Tokens]] = []

    def put(self, tokens: Tokens, adapter: str | None) -> None:
        """Keep a sequence; kept ones that are a prefix of it are dropped."""
        if self._num_kept == 0 or len(tokens) < _MIN_REUSED:
            return
        self._kept = [
            (name, other)
            for name, other in self._kept
            if name != adapter or num_common(other, tokens) < len(other)
        ]
        self._kept = [*self._kept, (adapter, tokens)][-self._num_kept :]

    def num_cached(
        self, prompt: Tokens, adapter: str | None, running: Iterable[tuple[str | None, Tokens]]
    ) -> int:
        """Length of the prompt's longest prefix among the kept and the running sequences.

        Never the whole prompt: its last token is read to predict the next one.
        """
        if self._num_kept == 0:
            return 0
        known = [tokens for name, tokens in (*self._kept, *running) if name == adapter]
        longest = max((num_common(tokens, prompt) for tokens in known), default=0)
        longest = min(longest, len(prompt) - 1)
        return longest if longest >= _MIN_REUSED else 0


def num_common(one: Tokens, other: Tokens) -> int:
    """Length of the common prefix. Bisection, because comparing slices is faster than a loop."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
