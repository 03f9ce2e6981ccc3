"""Prompt lookup decoding: drafts the next tokens of a sequence from its own text.

Source: Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from workers.engines.shared.token_key import Tokens

_NGRAM_SIZES = (4, 3, 2)  # a longer match gives a better draft


class PromptLookup:
    """Drafts the tokens that followed an earlier occurrence of the sequence's last n-gram."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._num_known = 0

    def draft(self, tokens: Tokens, max_tokens: int) -> list[int]:
        """Up to ``max_tokens`` drafts after ``tokens``, the whole sequence, which may only grow."""
        self._learn(tokens)
        for size in _NGRAM_SIZES:
            end = self._ends.get(tuple(tokens[-size:]))
            if end is not None:
                return [int(token) for token in tokens[end : end + max_tokens]]
        return []

    def _learn(self, tokens: Tokens) -> None:
        """Note the end of the last occurrence of each n-gram that a token follows."""
        for end in range(max(1, self._num_known), len(tokens)):
            for size in _NGRAM_SIZES:
                if end >= size:
                    self._ends[tuple(tokens[end - size : end])] = end
        self._num_known = len(tokens)
