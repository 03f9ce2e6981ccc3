"""openai-python: files and uploads. A field off its type raises."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI

if TYPE_CHECKING:
    from tests.clients.programs.run import Target

_LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


def _client(target: Target) -> OpenAI:
    return OpenAI(
        base_url=target.openai_url,
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    )


def files(target: Target) -> None:
    """One file from its creation to its deletion."""
    with _client(target) as client:
        file = client.files.create(file=("in.jsonl", _LINE), purpose="batch")
        assert client.files.wait_for_processing(file.id) == file
        assert client.files.retrieve(file.id).status == "processed"
        assert client.files.content(file.id).read() == _LINE
        with client.files.with_streaming_response.content(file.id) as answer:
            assert b"".join(answer.iter_bytes()) == _LINE
        assert client.files.delete(file.id).deleted
        target.error_of(NotFoundError, client.files.retrieve, file_id=file.id)


def files_by_pages(target: Target) -> None:
    """More of them than a page has, from what is like a file and from a path."""
    with _client(target) as client, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "from-a-path.bin"
        path.write_bytes(b"\0\1\2")
        made = {
            client.files.create(file=given, purpose="user_data").id
            for given in (path, path.open("rb"), io.BytesIO(b"x"), b"bytes", ("name.txt", b"x"))
        }
        listed = [file.id for file in client.files.list(purpose="user_data", limit=2)]
        assert made <= set(listed)
        assert len(listed) == len(set(listed))
        for file_id in made:
            client.files.delete(file_id)


def errors(target: Target) -> None:
    """As the client's own errors, with the field at fault."""
    with _client(target) as client:
        wrong = target.error_of(
            BadRequestError, client.files.create, file=("in.txt", _LINE), purpose="batch"
        )
        assert wrong.param == "file"
        large = target.error_of(
            APIStatusError,
            client.uploads.create,
            bytes=10**13,
            filename="a",
            mime_type="text/plain",
            purpose="user_data",
        )
        assert (large.status_code, large.param) == (413, "bytes")


def upload(target: Target) -> None:
    """A file in parts, by the client's own helper and by hand."""
    data = _LINE * 20_000
    with _client(target) as client, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jsonl"
        path.write_bytes(data)
        done = client.uploads.upload_file_chunked(
            file=path,
            mime_type="application/jsonl",
            purpose="batch",
            part_size=500_000,
            md5=hashlib.md5(data).hexdigest(),
        )
        assert done.status == "completed"
        assert done.file is not None
        assert client.files.content(done.file.id).read() == data
        begun = client.uploads.create(
            bytes=3, filename="a", mime_type="text/plain", purpose="user_data"
        )
        client.uploads.parts.create(begun.id, data=b"abc")
        assert client.uploads.cancel(begun.id).status == "cancelled"
