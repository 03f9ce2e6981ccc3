"""The content of a file as an answer: whole, or a range of it (RFC 9110, section 14)."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.web.errors import INVALID, Problem, ProblemError
from jobs.files.record import FileRecord

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file as it is sent; ``etag`` is quoted."""

    path: Path
    num_bytes: int
    etag: str
    filename: str
    media_type: str


def served(path: Path, record: FileRecord) -> ServedFile:
    """A file of the store."""
    is_lines = record.filename.lower().endswith(".jsonl")
    media_type = "application/jsonl" if is_lines else "application/octet-stream"
    return ServedFile(path, record.bytes, record.etag, record.filename, media_type)


class FileContent(Response):
    """Sends a file that was opened before: a deletion meanwhile does not cut it off."""

    def __init__(self, file: ServedFile, request_headers: Headers) -> None:
        span = _span(request_headers, file)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
            "Content-Length": str(file.num_bytes if span is None else len(span)),
            "ETag": file.etag,
            "X-Content-Type-Options": "nosniff",
        }
        if span is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.num_bytes}"
        super().__init__(None, 200 if span is None else 206, headers, file.media_type)
        self._span = range(file.num_bytes) if span is None else span
        self._path = file.path
        self._descriptor = os.open(file.path, os.O_RDONLY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = {"type": "http.response.start", "status": self.status_code}
            await send({**head, "headers": self.raw_headers})
            position = self._span.start
            while position < self._span.stop:
                length = min(_PIECE_BYTES, self._span.stop - position)
                piece = await asyncio.to_thread(os.pread, self._descriptor, length, position)
                if not piece:
                    raise OSError(f"{self._path} is shorter than it was")
                position += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            os.close(self._descriptor)


def is_known(headers: Headers, etag: str) -> bool:
    """Whether the client has this content already."""
    given = headers.get("if-none-match", "")
    return given.strip() == "*" or etag in (tag.strip() for tag in given.split(","))


def _span(headers: Headers, file: ServedFile) -> range | None:
    """The bytes that are asked for; ``None``: all. Lists of ranges are answered with all.

    Raises ``ProblemError`` (416) when there is no such byte.
    """
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or not any(found.groups()):
        return None
    if headers.get("if-range", file.etag) != file.etag:
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None  # no range by its grammar
    if first:
        start, stop = int(first), min(int(last) + 1 if last else file.num_bytes, file.num_bytes)
    else:
        start, stop = max(file.num_bytes - int(last), 0), file.num_bytes
    if start >= stop:
        message = f"the file has {file.num_bytes} bytes, and none of that range"
        headers_416 = {"Content-Range": f"bytes */{file.num_bytes}"}
        raise ProblemError(
            Problem(416, INVALID, "range_not_satisfiable", message, "Range", headers_416)
        )
    return range(start, stop)
