"""Guesses at the next tokens of a sequence, from its own text.

Prompt lookup decoding, Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from workers.engines.shared.token_key import Tokens

_NGRAM_SIZES = (4, 3, 2)  # the longer one is the better guess


class PromptLookup:
    """What followed the last n-gram of one sequence when it stood in its text before."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._num_known = 0

    def draft(self, tokens: Tokens, max_tokens: int) -> list[int]:
        """Up to ``max_tokens`` that may follow the ``tokens`` of the sequence, which only grow."""
        self._learn(tokens)
        for size in _NGRAM_SIZES:
            end = self._ends.get(tuple(tokens[-size:]))
            if end is not None:
                return [int(token) for token in tokens[end : end + max_tokens]]
        return []

    def _learn(self, tokens: Tokens) -> None:
        """Note where each n-gram ends that has a token behind it; later ones count."""
        for end in range(max(1, self._num_known), len(tokens)):
            for size in _NGRAM_SIZES:
                if end >= size:
                    self._ends[tuple(tokens[end - size : end])] = end
        self._num_known = len(tokens)
