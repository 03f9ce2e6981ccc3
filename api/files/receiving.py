"""Receives a form whose file goes to disk as it arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.files.bodies import StreamedBody, refused
from api.files.multipart import FormEvent, FormReader, PartBegins, PartData
from jobs.contract.errors import InvalidRequestError
from jobs.files.partial import PartialFile
from jobs.files.record import FileTooLargeError
from jobs.files.store import FileStore

_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 64 * 1024
_FORM_BYTES = 1024 * 1024  # what may come with the file
_GONE = 499  # nobody reads it


@dataclass
class ReceivedForm:
    """The fields, and the file, which is removed when its form was used."""

    fields: dict[str, str] = field(default_factory=dict)
    file: PartialFile | None = None
    filename: str = ""

    def given_file(self, name: str) -> PartialFile:
        """Raises ``InvalidRequestError`` if the form has no file."""
        if self.file is None:
            raise InvalidRequestError(f"{name}: a file is required", name)
        return self.file


class FormReceiver:
    """Receives one form. ``file_field`` is the part that goes to disk, up to ``max_bytes``."""

    def __init__(self, store: FileStore, file_field: str, max_bytes: int) -> None:
        self._store = store
        self._file_field = file_field
        self._max_bytes = max_bytes
        self._form = ReceivedForm()
        self._part: PartBegins | None = None
        self._value = bytearray()

    async def receive(
        self, request: Request, use: Callable[[ReceivedForm], Awaitable[Response]]
    ) -> Response:
        """What ``use`` makes of the form. Nothing stays of one that is refused or cut off."""
        try:
            await self._read(request)
            return await use(self._form)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        except FileTooLargeError as error:
            raise refused(413, error.code, error.message, self._file_field) from None
        finally:
            if self._form.file is not None:
                self._form.file.close()

    async def _read(self, request: Request) -> None:
        body = StreamedBody(request, self._max_bytes + _FORM_BYTES)
        try:
            reader = FormReader(request.headers.get("content-type", ""))
            async with contextlib.aclosing(body.pieces()) as pieces:
                async for piece in pieces:
                    for event in reader.feed(piece):
                        await self._take(event, body.announced_bytes)
            reader.close()
        except ClientDisconnect:
            raise
        except Exception:
            await body.drain()
            raise

    async def _take(self, event: FormEvent, num_bytes: int) -> None:
        if isinstance(event, PartBegins):
            self._part = event
            if event.name == self._file_field:
                await self._begin_file(event, num_bytes)
            elif len(self._form.fields) >= _MAX_FIELDS:
                raise InvalidRequestError(f"the form has more than {_MAX_FIELDS} fields")
        elif isinstance(event, PartData):
            await self._take_data(event.data)
        elif not self._is_file:
            assert self._part is not None
            self._form.fields[self._part.name] = self._value.decode(errors="replace")
            self._value.clear()

    @property
    def _is_file(self) -> bool:
        return self._part is not None and self._part.name == self._file_field

    async def _begin_file(self, part: PartBegins, num_bytes: int) -> None:
        if self._form.file is not None:
            raise InvalidRequestError(f"{part.name}: one file at a time", part.name)
        self._form.file = await asyncio.to_thread(
            self._store.new_partial, num_bytes, self._max_bytes
        )
        self._form.filename = part.filename or ""

    async def _take_data(self, data: bytes) -> None:
        if self._is_file:
            assert self._form.file is not None
            await asyncio.to_thread(self._store.write, self._form.file, data)
            return
        self._value += data
        if len(self._value) > _MAX_FIELD_BYTES:
            assert self._part is not None
            name = self._part.name[:80]
            raise InvalidRequestError(f"{name}: the field is longer than {_MAX_FIELD_BYTES}", name)
