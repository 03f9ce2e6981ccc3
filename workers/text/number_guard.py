"""Keeps numbers in constrained JSON from going on for ever.

A grammar allows any number of digits, and a small model that has begun with zeros may not stop.
With 15 digits a number is still read as what was written, bounds included; integers may be longer.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from workers.engines.base import Tokenizer

MAX_DIGITS = 32
MAX_DIGITS_OF_FRACTION = 15
_DIGITS = frozenset(b"0123456789")
_INSIDE = frozenset(b".eE+-")  # of a number, beside its digits
_QUOTE, _BACKSLASH, _POINT = b'"\\.'

Mask = npt.NDArray[np.bool_]


class DigitTokens:
    """Which tokens of a vocabulary begin with a digit.

    They are sought at the first use, which takes a large vocabulary a second: see ``find``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def find(self) -> None:
        """Seek them now, away from the engine's thread."""
        _ = self.any, self.zero

    @cached_property
    def any(self) -> Mask:
        return np.isin(self._beginnings, [bytes([digit]) for digit in _DIGITS])

    @cached_property
    def zero(self) -> Mask:
        return np.isin(self._beginnings, [b"0"])

    @cached_property
    def _beginnings(self) -> npt.NDArray[np.bytes_]:
        """The first byte of each token's text."""
        pieces = map(self._tokenizer.piece, range(self._tokenizer.vocab_size))
        return np.array([piece[:1] for piece in pieces], "S1")

    def piece(self, token_id: int) -> bytes:
        return self._tokenizer.piece(token_id)


class NumberGuard:
    """Follows one JSON text; in a long number it leaves digits out of what may come next."""

    def __init__(self, tokens: DigitTokens) -> None:
        self._tokens = tokens
        self._is_text = False
        self._is_escaped = False
        self._is_fraction = False
        self._num_digits = 0

    def accept(self, token_id: int) -> None:
        for byte in self._tokens.piece(token_id):
            self._read(byte)

    def narrow(self, allowed: Mask) -> Mask:
        """The mask without what would prolong the number, where anything else is left."""
        if self._num_digits < (MAX_DIGITS_OF_FRACTION if self._is_fraction else MAX_DIGITS):
            return allowed
        for digits in (self._tokens.any, self._tokens.zero):
            rest = allowed & ~digits
            if rest.any():
                return rest
        return allowed

    def _read(self, byte: int) -> None:
        if self._is_text:
            self._is_text = byte != _QUOTE or self._is_escaped
            self._is_escaped = byte == _BACKSLASH and not self._is_escaped
        elif byte in _DIGITS:
            self._num_digits += 1
        elif byte in _INSIDE:
            self._is_fraction = self._is_fraction or byte == _POINT
        else:
            self._num_digits, self._is_fraction = 0, False
            self._is_text = byte == _QUOTE
