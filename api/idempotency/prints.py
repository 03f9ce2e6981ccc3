"""The print of a request: equal for equal bodies, whatever a form's boundary is."""

from __future__ import annotations

import hashlib
import re

_BOUNDARY = re.compile(rb'boundary="?([^";,]+)"?', re.IGNORECASE)


class BodyPrint:
    """Hashes a body as it arrives.

    Clients draw the boundary of a multipart form anew for each request, also when they repeat one;
    so it is left out.
    """

    def __init__(self, content_type: bytes) -> None:
        found = _BOUNDARY.search(content_type) if content_type.startswith(b"multipart/") else None
        self._boundary = found.group(1) if found else b""
        self._hash = hashlib.sha256()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Add the next part of the body."""
        if not self._boundary:
            self._hash.update(data)
            return
        # A boundary may be cut between two parts: the last bytes wait for the next part.
        *whole, last = (self._rest + data).split(self._boundary)
        for piece in whole:
            self._hash.update(piece)
        keep = min(len(self._boundary) - 1, len(last))
        self._hash.update(last[: len(last) - keep])
        self._rest = last[len(last) - keep :]

    def hexdigest(self) -> str:
        """The print of what was fed."""
        final = self._hash.copy()
        final.update(self._rest)
        return final.hexdigest()
