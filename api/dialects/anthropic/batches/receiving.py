"""Turns the body of a new batch into an input file, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass

import msgspec
from starlette.requests import ClientDisconnect, Request

from api.dialects.anthropic.batches.splitter import FIELD, RequestSplitter
from api.files.bodies import StreamedBody
from jobs.batches.records import MAX_MESSAGES
from jobs.contract.errors import InvalidRequestError
from jobs.files.partial import PartialFile
from jobs.files.store import FileStore

ENDPOINT = "/v1/messages"
MAX_BODY_BYTES = 256 * 1024 * 1024
_MAX_INPUT_BYTES = 2 * MAX_BODY_BYTES  # each line gains a method and a path
_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Request(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


_decoder = msgspec.json.Decoder(_Request)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class ReceivedRequests:
    """The input file, still to be closed, and the number of its lines."""

    input: PartialFile
    num_lines: int


async def receive_requests(
    request: Request, files: FileStore, max_request_bytes: int
) -> ReceivedRequests:
    """Read the body. Nothing stays of one that is refused or cut off.

    Raises ``ProblemError``, ``JobError``, and ``ClientDisconnect``.
    """
    body = StreamedBody(request, MAX_BODY_BYTES)
    size = body.announced_bytes
    partial = await asyncio.to_thread(files.new_partial, size, _MAX_INPUT_BYTES)
    writer = _LineWriter(files, partial, max_request_bytes)
    try:
        async with contextlib.aclosing(body.pieces()) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(writer.feed, piece)
        return ReceivedRequests(partial, writer.close())
    except BaseException as error:
        partial.close()
        if isinstance(error, Exception) and not isinstance(error, ClientDisconnect):
            await body.drain()
        raise


class _LineWriter:
    """Checks each request as far as no model is needed for it, and writes it as a line."""

    def __init__(self, files: FileStore, partial: PartialFile, max_request_bytes: int) -> None:
        self._files = files
        self._partial = partial
        self._splitter = RequestSplitter(max_request_bytes)
        self._seen: set[str] = set()

    def feed(self, piece: bytes) -> None:
        lines = [self._line(text) for text in self._splitter.feed(piece)]
        if lines:
            self._files.write(self._partial, b"".join(lines))

    def close(self) -> int:
        """The body is over: the number of lines."""
        self._splitter.close()
        if not self._seen:
            raise InvalidRequestError(f"{FIELD}: at least one is required", FIELD)
        return len(self._seen)

    def _line(self, text: str) -> bytes:
        place = f"{FIELD}[{len(self._seen)}]"
        if len(self._seen) >= MAX_MESSAGES:
            raise InvalidRequestError(f"{FIELD}: more than {MAX_MESSAGES}", FIELD)
        try:
            found = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidRequestError(f"{place}: {error}", place) from None
        if not _CUSTOM_ID.fullmatch(found.custom_id):
            field = f"{place}.custom_id"
            message = f"{field}: 1 to 64 letters, digits, - and _ are allowed"
            raise InvalidRequestError(message, field)
        if found.custom_id in self._seen:
            field = f"{place}.custom_id"
            message = f"{field}: {found.custom_id!r} is that of an earlier request, too"
            raise InvalidRequestError(message, field)
        if not bytes(found.params).startswith(b"{"):
            raise InvalidRequestError(f"{place}.params: must be an object", f"{place}.params")
        self._seen.add(found.custom_id)
        line = {"custom_id": found.custom_id, "method": "POST", "url": ENDPOINT}
        return _encoder.encode({**line, "body": found.params}) + b"\n"
