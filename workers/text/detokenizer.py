"""Token pieces to text, as they arrive."""

from __future__ import annotations

import codecs


class Detokenizer:
    """Joins the UTF-8 pieces of one sequence; a character comes out when its last byte is there.

    Bytes that cannot be UTF-8 become U+FFFD, as ``bytes.decode(errors="replace")`` makes them:
    the text does not depend on how the bytes were cut into pieces.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The text that ``piece`` completes, "" while a character is open."""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never came whole."""
        return self._decoder.decode(b"", final=True)
