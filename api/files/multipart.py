"""Reads a multipart form piece by piece (RFC 7578), without holding its files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from jobs.contract.errors import InvalidRequestError

_MAX_HEAD_BYTES = 16 * 1024
_MAX_PREAMBLE_BYTES = 64 * 1024
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
# A quoted value may escape a quote with a backslash, as curl does.
_PARAMETER = re.compile(r';\s*([\w*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_CRLF = b"\r\n"
_LAST = b"--"  # after a delimiter: it ends the form


@dataclass(frozen=True, slots=True)
class PartBegins:
    """The head of a part; ``filename`` is ``None`` if it gives none."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the last part that has begun."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The last part that has begun is complete."""


FormEvent = PartBegins | PartData | PartEnds


class FormReader:
    """Turns the pieces of a body into events. Raises ``InvalidRequestError``."""

    def __init__(self, content_type: str) -> None:
        self._delimiter = _CRLF + b"--" + _boundary_of(content_type)
        self._buffer = bytearray(_CRLF)  # the first delimiter may be the first line
        self._is_in_part = False
        self._is_at_head = False
        self._is_over = False
        self._num_skipped = 0

    def feed(self, piece: bytes) -> Iterator[FormEvent]:
        """The events that the piece completes."""
        self._buffer += piece
        while not self._is_over:
            if self._is_at_head:
                if len(self._buffer) < len(_LAST):
                    return
                if self._buffer.startswith(_LAST):
                    self._is_over = True
                    break
                head = self._take_head()
                if head is None:
                    return
                self._is_at_head, self._is_in_part = False, True
                yield _begins(head)
            found = self._buffer.find(self._delimiter)
            data = self._take(found if found >= 0 else len(self._buffer) - len(self._delimiter) + 1)
            if self._is_in_part and data:
                yield PartData(data)
            elif not self._is_in_part:
                self._skip(data)
            if found < 0:
                return
            if self._is_in_part:
                yield PartEnds()
            del self._buffer[: len(self._delimiter)]
            self._is_in_part, self._is_at_head = False, True
        self._buffer.clear()  # what follows the last delimiter means nothing

    def close(self) -> None:
        """The body is over. Raises ``InvalidRequestError`` when its form is not."""
        if not self._is_over:
            raise InvalidRequestError("the form is not complete: its last boundary is missing")

    def _take(self, length: int) -> bytes:
        data = bytes(self._buffer[: max(length, 0)])
        del self._buffer[: max(length, 0)]
        return data

    def _skip(self, data: bytes) -> None:
        self._num_skipped += len(data)
        if self._num_skipped > _MAX_PREAMBLE_BYTES:
            raise InvalidRequestError("the body is not a form with the boundary of its header")

    def _take_head(self) -> bytes | None:
        """The lines of a part's head, once they are there."""
        # Blanks may follow a delimiter; its line break is the first of the head.
        end = self._buffer.find(_CRLF + _CRLF)
        if end > _MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > _MAX_HEAD_BYTES):
            raise InvalidRequestError("the head of a part of the form is too long")
        if end < 0:
            return None
        head = self._take(end)
        del self._buffer[: len(_CRLF) * 2]
        return head


def _boundary_of(content_type: str) -> bytes:
    kind = content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if kind != "multipart/form-data" or found is None:
        raise InvalidRequestError(
            "the body is a form: send it as Content-Type: multipart/form-data with a boundary"
        )
    return (found[1] or found[2]).encode("latin-1", errors="replace")


def _begins(head: bytes) -> PartBegins:
    for line in head.decode(errors="replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return _disposition(value)
    raise InvalidRequestError("a part of the form has no Content-Disposition")


def _disposition(value: str) -> PartBegins:
    found = {
        key.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for key, quoted, plain in _PARAMETER.findall(value)
    }
    if not found.get("name"):
        raise InvalidRequestError("a part of the form has no name")
    return PartBegins(_unescaped(found["name"]), _filename(found))


def _filename(found: dict[str, str]) -> str | None:
    if "filename*" in found:  # RFC 5987: charset'language'percent-encoded
        charset, _, rest = found["filename*"].partition("'")
        try:
            return unquote(rest.partition("'")[2], encoding=charset or "utf-8", errors="replace")
        except LookupError:
            raise InvalidRequestError("the file's name is in an unknown charset", "file") from None
    return _unescaped(found["filename"]) if "filename" in found else None


def _unescaped(text: str) -> str:
    """Browsers and httpx write these three so (HTML, multipart/form-data encoding algorithm)."""
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
