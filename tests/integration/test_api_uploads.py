"""/v1/uploads: a file in parts, joined in the end, once."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai import OpenAI

from jobs.files.store import FileStore
from jobs.files.upload_records import UploadRecord, record_of
from jobs.files.uploads import UploadStore
from tests.integration.api_rig import Rig

DATA = b"0123456789\n" * 100_000


def begin(client: OpenAI, num_bytes: int = 6, **fields: Any) -> Any:
    values = {"filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data", **fields}
    return client.uploads.create(bytes=num_bytes, **values)


def send(client: OpenAI, upload: Any, data: bytes) -> str:
    return client.uploads.parts.create(upload.id, data=data).id


def folder_of(rig: Rig, upload: Any) -> Path:
    return rig.settings.files_folder / "uploads" / str(upload.id)


def test_a_large_file_is_sent_in_parts(client: OpenAI, rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_bytes(DATA)
    upload = client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=300_000,
        md5=hashlib.md5(DATA).hexdigest(),
    )
    assert (upload.status, upload.bytes) == ("completed", len(DATA))
    assert upload.file.filename == "large.jsonl"
    assert upload.file.expires_at - upload.file.created_at == 30 * 86400
    assert client.files.content(upload.file.id).content == DATA
    assert [path.name for path in folder_of(rig, upload).iterdir()] == ["upload.json"]


def test_parts_are_joined_in_the_order_that_the_end_gives(client: OpenAI) -> None:
    upload = begin(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert upload.status == "pending"
    assert upload.expires_at == upload.created_at + 3600
    last, first = send(client, upload, b"def"), send(client, upload, b"abc")
    done = client.uploads.complete(upload.id, part_ids=[first, last])
    assert client.files.content(done.file.id).content == b"abcdef"
    assert done.file.expires_at - done.file.created_at == 3600


def test_a_repeated_end_gets_the_same_file(client: OpenAI) -> None:
    upload = begin(client)
    parts = [send(client, upload, b"abcdef")]
    first = client.uploads.complete(upload.id, part_ids=parts)
    assert client.uploads.complete(upload.id, part_ids=parts) == first
    assert len(client.files.list().data) == 1


def test_an_end_that_was_cut_off_makes_no_second_file(client: OpenAI, rig: Rig) -> None:
    """The process died when the file was stored, and the upload did not know of it yet."""
    upload = begin(client)
    parts = [send(client, upload, b"abcdef")]
    first = client.uploads.complete(upload.id, part_ids=parts)
    record_path = folder_of(rig, upload) / "upload.json"
    record = msgspec.json.decode(record_path.read_bytes(), type=UploadRecord)
    pending = msgspec.structs.replace(record, status="pending")
    record_path.write_bytes(msgspec.json.encode(pending))
    assert client.uploads.complete(upload.id, part_ids=parts).file == first.file
    assert len(client.files.list().data) == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (lambda parts: ["part_" + "0" * 32], "part_ids[0]"),
        (lambda parts: ["../upload.json"], "part_ids[0]"),
        (lambda parts: [parts[0], parts[0]], "part_ids[1]"),
        (lambda parts: parts[:1], "part_ids"),
        (lambda parts: [], "part_ids"),
    ],
)
def test_a_wrong_list_of_parts_is_refused(client: OpenAI, change: Any, param: str) -> None:
    upload = begin(client)
    parts = [send(client, upload, b"abc"), send(client, upload, b"def")]
    with pytest.raises(openai.BadRequestError) as error:
        client.uploads.complete(upload.id, part_ids=change(parts))
    assert error.value.param == param
    assert client.uploads.complete(upload.id, part_ids=parts).status == "completed"


def test_a_wrong_checksum_is_refused_and_makes_no_file(client: OpenAI) -> None:
    upload = begin(client)
    parts = [send(client, upload, b"abcdef")]
    with pytest.raises(openai.BadRequestError) as error:
        client.uploads.complete(upload.id, part_ids=parts, md5="0" * 32)
    assert error.value.param == "md5"
    assert client.files.list().data == []
    assert client.uploads.complete(upload.id, part_ids=parts).status == "completed"


def test_parts_beyond_the_announced_size_and_empty_ones_are_refused(client: OpenAI) -> None:
    upload = begin(client)
    send(client, upload, b"abcd")
    for data in (b"efg", b""):
        with pytest.raises(openai.BadRequestError) as error:
            send(client, upload, data)
        assert error.value.param == "data"


def test_a_cancelled_upload_takes_nothing_more(client: OpenAI, rig: Rig) -> None:
    upload = begin(client)
    part = send(client, upload, b"abcdef")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert client.uploads.cancel(upload.id).status == "cancelled"
    for call in (
        lambda: send(client, upload, b"a"),
        lambda: client.uploads.complete(upload.id, part_ids=[part]),
    ):
        with pytest.raises(openai.BadRequestError, match="is cancelled"):
            call()
    assert [path.name for path in folder_of(rig, upload).iterdir()] == ["upload.json"]


def test_a_completed_upload_cannot_be_cancelled(client: OpenAI) -> None:
    upload = begin(client)
    client.uploads.complete(upload.id, part_ids=[send(client, upload, b"abcdef")])
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(upload.id)


def test_an_upload_expires_with_its_parts(client: OpenAI, rig: Rig) -> None:
    upload, other = begin(client), begin(client)
    send(client, upload, b"abc")
    path = folder_of(rig, upload) / "upload.json"
    record = record_of(folder_of(rig, upload))
    assert record is not None
    expired = msgspec.structs.replace(record, expires_at=time.time() - 1)
    path.write_bytes(msgspec.json.encode(expired))
    with pytest.raises(openai.BadRequestError, match="is expired"):
        send(client, upload, b"def")
    FileStore(rig.settings, rig.redis).forget_expired()
    assert not folder_of(rig, upload).exists()
    assert folder_of(rig, other).exists()
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel(upload.id)


def test_a_torn_record_is_no_upload_and_is_removed_in_time(client: OpenAI, rig: Rig) -> None:
    upload = begin(client)
    folder = folder_of(rig, upload)
    (folder / "upload.json").write_bytes(b"{")
    with pytest.raises(openai.NotFoundError):
        send(client, upload, b"abc")
    files = FileStore(rig.settings, rig.redis)
    files.forget_expired()
    assert folder.exists()
    long_ago = time.time() - 2 * 86400
    os.utime(folder, (long_ago, long_ago))
    files.forget_expired()
    assert not folder.exists()


@pytest.mark.parametrize("upload_id", ["x", "upload_" + "0" * 32, "..%2f..%2ffiles"])
def test_an_unknown_upload_is_not_found(rig: Rig, upload_id: str) -> None:
    answer = rig.http.post(f"/v1/uploads/{upload_id}/cancel")
    assert answer.status_code == 404


def test_a_file_that_is_too_large_is_refused_when_it_is_announced(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        begin(client, num_bytes=10**12)
    assert (error.value.status_code, error.value.param) == (413, "bytes")


def test_batches_take_files_of_lines_only(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Must be") as error:
        begin(client, purpose="batch")
    assert error.value.param == "filename"


def test_many_parts_at_once_are_all_counted(client: OpenAI, rig: Rig, background: Any) -> None:
    upload = begin(client, num_bytes=10)
    asked = [background(send, client, upload, b"abc") for _ in range(6)]
    ended = [future.exception() for future in asked]
    assert sum(error is None for error in ended) == 3
    uploads = UploadStore(FileStore(rig.settings, rig.redis))
    assert uploads.record(upload.id).status == "pending"
