"""Converts the bytes of tokens to text, token by token."""

from __future__ import annotations

import codecs


class Detokenizer:
    """Joins the UTF-8 pieces of one sequence; a character is returned with its last byte.

    Invalid bytes become U+FFFD, as in ``bytes.decode(errors="replace")``. The text does not depend
    on where the bytes were cut.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The characters that ``piece`` completes."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """The rest at the end: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)
