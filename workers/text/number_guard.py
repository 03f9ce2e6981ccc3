"""Limits the length of numbers in constrained JSON.

A grammar allows any number of digits, and a small model that has written some zeros may never stop.
Numbers with up to 15 digits keep their value in a float, so fractions get 15; integers get more.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from workers.engines.base import Tokenizer

MAX_DIGITS = 32
MAX_DIGITS_OF_FRACTION = 15
MAX_DIGITS_OF_EXPONENT = 2  # more, and readers take the number for infinite
_DIGITS = frozenset(b"0123456789")
_NUMBER_SIGNS = frozenset(b".eE+-")
_QUOTE, _BACKSLASH, _POINT = b'"\\.'
_EXPONENT = frozenset(b"eE")

Mask = npt.NDArray[np.bool_]


class DigitTokens:
    """Masks (vocab_size,) of the tokens that begin with a digit.

    They are computed at the first use, which takes a second for a large vocabulary: see ``find``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def find(self) -> None:
        """Compute the masks now, so that the engine's thread does not have to."""
        _ = self.any, self.zero

    @cached_property
    def any(self) -> Mask:
        return np.isin(self._first_bytes, [bytes([digit]) for digit in _DIGITS])

    @cached_property
    def zero(self) -> Mask:
        return np.isin(self._first_bytes, [b"0"])

    @cached_property
    def _first_bytes(self) -> npt.NDArray[np.bytes_]:
        pieces = map(self._tokenizer.piece, range(self._tokenizer.vocab_size))
        return np.array([piece[:1] for piece in pieces], "S1")

    def piece(self, token_id: int) -> bytes:
        return self._tokenizer.piece(token_id)


class NumberGuard:
    """Follows one JSON text; removes tokens that would prolong a long number from its masks."""

    def __init__(self, tokens: DigitTokens) -> None:
        self._tokens = tokens
        self._is_text = False
        self._is_escaped = False
        self._is_fraction = False
        self._num_digits = 0
        self._num_exponent: int | None = None  # its digits, once it has begun

    def accept(self, token_id: int) -> None:
        for byte in self._tokens.piece(token_id):
            self._read(byte)

    def narrow(self, allowed: Mask) -> Mask:
        """The mask without what would prolong the number, where anything else is left."""
        if not self._is_long:
            return allowed
        for digits in (self._tokens.any, self._tokens.zero):
            rest = allowed & ~digits
            if rest.any():
                return rest
        return allowed

    @property
    def _is_long(self) -> bool:
        if self._num_exponent is not None:
            return self._num_exponent >= MAX_DIGITS_OF_EXPONENT
        return self._num_digits >= (MAX_DIGITS_OF_FRACTION if self._is_fraction else MAX_DIGITS)

    def _read(self, byte: int) -> None:
        if self._is_text:
            self._is_text = byte != _QUOTE or self._is_escaped
            self._is_escaped = byte == _BACKSLASH and not self._is_escaped
        elif byte in _DIGITS:
            self._num_digits += 1
            if self._num_exponent is not None:
                self._num_exponent += 1
        elif byte in _NUMBER_SIGNS:
            self._is_fraction = self._is_fraction or byte == _POINT
            if byte in _EXPONENT and self._num_digits:
                self._num_exponent = 0
        else:
            self._num_digits, self._is_fraction, self._num_exponent = 0, False, None
            self._is_text = byte == _QUOTE
