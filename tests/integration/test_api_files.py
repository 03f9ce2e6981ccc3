"""/v1/files through HTTP and OpenAI's client: forms to disk, pages, ranges, whose they are."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

import api.files.bodies
from jobs.files.store import FileStore
from jobs.keys.keys_file import hash_of
from tests.helpers.private_redis import private_redis
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, check_error_shape, read_until, running_api

LINES = b'{"custom_id": "a"}\n'
FORM_TYPE = "multipart/form-data; boundary=xyz"


def create(client: OpenAI, name: str = "in.jsonl", data: bytes = LINES, **fields: Any) -> Any:
    return client.files.create(file=(name, data), **{"purpose": "batch", **fields})


def left_on_disk(rig: Rig) -> list[str]:
    root = rig.settings.files_folder
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != "uid"
    )


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), data)
        for head, data in parts
    )
    return body + b"--xyz--\r\n"


def test_a_file_is_stored_shown_read_and_deleted(client: OpenAI, rig: Rig) -> None:
    file = create(client, data=LINES * 1000)
    assert (file.bytes, file.filename, file.purpose) == (len(LINES) * 1000, "in.jsonl", "batch")
    assert file.status == "processed"
    assert file.expires_at == file.created_at + 30 * 86400
    assert client.files.retrieve(file.id) == client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).content == LINES * 1000
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as error:
            call(file.id)
        assert error.value.code == "file_not_found"
    assert left_on_disk(rig) == []


def test_a_large_file_comes_back_as_it_was(client: OpenAI) -> None:
    data = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(200_000))
    file = create(client, "large.bin", data, purpose="user_data")
    assert file.bytes == len(data) > 6_000_000
    assert file.expires_at is None
    assert client.files.content(file.id).content == data


def test_files_are_listed_by_pages_and_purposes(client: OpenAI) -> None:
    made = [create(client, purpose="user_data" if n % 2 else "batch") for n in range(7)]
    listed = [file.id for file in client.files.list(limit=2)]
    assert set(listed) == {file.id for file in made}
    assert listed == sorted(listed, reverse=True)
    assert [file.id for file in client.files.list(limit=3, order="asc")] == listed[::-1]
    found = [file.id for file in client.files.list(purpose="user_data", limit=1)]
    assert set(found) == {file.id for file in made[1::2]}


def test_an_expiry_is_taken_from_the_nested_fields(client: OpenAI) -> None:
    after = {"anchor": "created_at", "seconds": 7200}
    file = create(client, "a.txt", purpose="user_data", expires_after=after)
    assert file.expires_at == file.created_at + 7200


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"file": ("a.txt", b"x"), "purpose": "batch"}, "file", "Must be .jsonl"),
        ({"file": ("a.jsonl", b"x"), "purpose": "other"}, "purpose", "batch"),
        (
            {
                "file": ("a.jsonl", b"x"),
                "purpose": "batch",
                "expires_after": {"anchor": "created_at", "seconds": 3599},
            },
            "expires_after.seconds",
            "3600",
        ),
    ],
)
def test_a_wrong_field_is_named(
    client: OpenAI, rig: Rig, fields: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as error:
        client.files.create(**fields)
    assert error.value.param == param
    assert left_on_disk(rig) == []


@pytest.mark.parametrize(
    ("content", "content_type", "param"),
    [
        (b"", FORM_TYPE, None),
        (b"{}", "application/json", None),
        (form(('name="purpose"', b"batch")), FORM_TYPE, "file"),
        (form(('name="file"; filename="a.jsonl"', b"x")), FORM_TYPE, "purpose"),
        (form(('name="file"; filename="a"', b"x"))[:-4], FORM_TYPE, None),
        (form(*[('name="file"; filename="a"', b"x")] * 2), FORM_TYPE, "file"),
        (form(('name="purpose"', b"x" * 100_000)), FORM_TYPE, "purpose"),
        (form(*[(f'name="a{n}"', b"x") for n in range(100)]), FORM_TYPE, None),
        (b"x" * 3_000_000, FORM_TYPE, None),
    ],
)
def test_a_broken_form_is_refused_and_leaves_nothing(
    rig: Rig, content: bytes, content_type: str, param: str | None
) -> None:
    headers = {"Content-Type": content_type}
    answer = rig.http.post("/v1/files", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == param
    assert left_on_disk(rig) == []


def test_the_fields_may_follow_the_file_and_its_name_loses_its_folders(rig: Rig) -> None:
    name = "C:\\folder/../\x07in.jsonl"
    body = form((f'name="file"; filename="{name}"', LINES), ('name="purpose"', b"batch"))
    answer = rig.http.post("/v1/files", content=body, headers={"Content-Type": FORM_TYPE})
    assert answer.json()["filename"] == "in.jsonl"


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=0-4", 206, 0, 5),
        ("bytes=4-", 206, 4, 19),
        ("bytes=-3", 206, 16, 19),
        ("bytes=-99", 206, 0, 19),
        ("bytes=10-99", 206, 10, 19),
        ("bytes=5-2", 200, 0, 19),
        ("bytes=0-1,4-5", 200, 0, 19),
        ("lines=1-2", 200, 0, 19),
        ("bytes=-", 200, 0, 19),
    ],
)
def test_a_range_of_a_file_is_sent(
    client: OpenAI, rig: Rig, asked: str, status: int, begin: int, end: int
) -> None:
    file = create(client)
    answer = rig.http.get(f"/v1/files/{file.id}/content", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, LINES[begin:end])
    is_part = f"bytes {begin}-{end - 1}/19" if status == 206 else None
    assert answer.headers.get("Content-Range") == is_part


@pytest.mark.parametrize("asked", ["bytes=19-", "bytes=-0", "bytes=100-200"])
def test_a_range_beyond_the_file_is_refused(client: OpenAI, rig: Rig, asked: str) -> None:
    path = f"/v1/files/{create(client).id}/content"
    answer = rig.http.get(path, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */19"
    check_error_shape(answer.json())


def test_content_that_the_client_has_is_not_sent_again(client: OpenAI, rig: Rig) -> None:
    path = f"/v1/files/{create(client).id}/content"
    etag = rig.http.get(path).headers["ETag"]
    assert rig.http.get(path, headers={"If-None-Match": f'"x", {etag}'}).status_code == 304
    changed = rig.http.get(path, headers={"Range": "bytes=0-1", "If-Range": '"x"'})
    assert (changed.status_code, changed.content) == (200, LINES)
    same = rig.http.get(path, headers={"Range": "bytes=0-1", "If-Range": etag})
    assert (same.status_code, same.content) == (206, LINES[:2])
    head = rig.http.head(path)
    assert (head.headers["Content-Length"], head.content) == ("19", b"")


def test_an_empty_file_is_a_file(client: OpenAI) -> None:
    assert client.files.content(create(client, data=b"").id).content == b""


@pytest.fixture
def small_rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    limits = {"max_file_bytes": 2_000_000, "files_max_bytes": 3_000_000}
    with running_api(tmp_path, redis_url, **limits) as running:
        yield running


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("size", [2_000_001, 9_000_000])
def test_a_file_that_is_too_large_gets_413_and_leaves_nothing(
    small_rig: Rig, size: int, is_announced: bool
) -> None:
    body = form(('name="purpose"', b"user_data"), ('name="file"; filename="a"', b"x" * size))
    content = body if is_announced else (body[at : at + 65536] for at in range(0, len(body), 65536))
    headers = {"Content-Type": FORM_TYPE}
    answer = small_rig.http.post("/v1/files", content=content, headers=headers)
    assert answer.status_code == 413, answer.text
    assert answer.json()["error"]["code"] in ("file_too_large", "body_too_large")
    assert left_on_disk(small_rig) == []


def test_files_that_are_too_large_together_get_507(small_rig: Rig) -> None:
    upload = {"file": ("a", b"x" * 1_500_000)}
    answers = [
        small_rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"})
        for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [200, 507, 507]
    assert answers[1].json()["error"]["code"] == "files_full"
    assert answers[1].headers["x-should-retry"] == "false"
    small_rig.http.delete(f"/v1/files/{answers[0].json()['id']}")
    again = small_rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"})
    assert again.status_code == 200


def test_a_full_disk_gets_507_and_leaves_nothing(rig: Rig, client: OpenAI) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        upload = {"file": ("a", b"x" * 2_000_000)}
        answer = rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert left_on_disk(rig) == []
    assert client.files.list().data == []


def begin_upload(rig: Rig, size: int = 1_000_000) -> socket.socket:
    """A form whose second half does not come."""
    body = form(('name="purpose"', b"user_data"), ('name="file"; filename="a"', b"x" * size))
    client = rig.connect()
    head = (
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {FORM_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body[: len(body) * 3 // 4])
    wait_until(lambda: left_on_disk(rig), "a part of the file on disk")
    return client


def test_a_client_that_goes_away_leaves_nothing(rig: Rig, client: OpenAI) -> None:
    begin_upload(rig).close()
    wait_until(lambda: left_on_disk(rig) == [], "the part to be removed")
    assert client.files.list().data == []


def test_a_client_that_stops_to_send_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.files.bodies, "_PIECE_TIMEOUT_S", 0.3)
    with begin_upload(rig) as waiting:
        assert b"408" in read_until(waiting, b"body_timeout")
    assert left_on_disk(rig) == []


def test_two_files_at_once_do_not_mix(client: OpenAI, background: Any) -> None:
    contents = [bytes([65 + n]) * 3_000_000 for n in range(4)]
    asked = [background(create, client, data=data, purpose="user_data") for data in contents]
    for data, file in zip(contents, [future.result() for future in asked], strict=True):
        assert client.files.content(file.id).content == data


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(
    client: OpenAI, rig: Rig
) -> None:
    file = create(client, data=LINES * 500_000)
    with rig.http.stream("GET", f"/v1/files/{file.id}/content") as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        client.files.delete(file.id)
        assert first + b"".join(pieces) == LINES * 500_000


def test_nothing_is_stored_while_redis_is_away(tmp_path: Path) -> None:
    with private_redis(is_kept=True) as server, running_api(tmp_path, server.url) as rig:
        server.kill()
        upload = {"file": ("a", b"x")}
        answer = rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert left_on_disk(rig) == []
        server.start()
        answer = rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"})
        assert answer.status_code == 200
        listed = rig.http.get("/v1/files").json()["data"]
        assert [file["id"] for file in listed] == [answer.json()["id"]]


def test_a_file_is_read_and_deleted_while_redis_is_away(tmp_path: Path) -> None:
    with private_redis(is_kept=True) as server, running_api(tmp_path, server.url) as rig:
        upload = {"file": ("a", b"x")}
        made = rig.http.post("/v1/files", files=upload, data={"purpose": "user_data"}).json()
        path = f"/v1/files/{made['id']}"
        server.kill()
        assert rig.http.get(f"{path}/content").content == b"x"
        assert rig.http.delete(path).json()["deleted"]
        server.start()
        assert rig.http.get(path).status_code == 404
        assert rig.http.get("/v1/files").json()["data"] == []


def test_the_files_are_listed_again_after_a_loss_of_redis(client: OpenAI, rig: Rig) -> None:
    made = {create(client).id for _ in range(3)}
    rig.redis.flushall()
    assert {file.id for file in client.files.list()} == made


def test_a_new_api_process_makes_the_index_whole(client: OpenAI, rig: Rig, tmp_path: Path) -> None:
    """After a loss of power, Redis may lack what it was told last."""
    file = create(client)
    rig.redis.delete(f"mgs:file:{file.id}")
    rig.redis.zrem("mgs:files", file.id)
    rig.redis.zrem("mgs:files:", file.id)
    with running_api(tmp_path, rig.settings.effective_redis_url) as second:
        wait_until(lambda: second.http.get("/v1/files").json()["data"], "the file to be listed")


# Whose they are.


@pytest.fixture
def clients(tmp_path: Path, redis_url: str) -> Iterator[dict[str, httpx.Client]]:
    """Of two keys and of a manager."""
    keys = {"keys": [{"name": name, "sha256": hash_of(name)} for name in ("alice", "bob")]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    changes = {"keys_file": tmp_path / "keys.json", "management_key": "root"}
    with running_api(tmp_path, redis_url, **changes) as rig:
        found = {
            name: httpx.Client(base_url=rig.url, headers={"Authorization": f"Bearer {name}"})
            for name in ("alice", "bob", "root")
        }
        yield found
        for one in found.values():
            one.close()


def upload_as(client: httpx.Client) -> str:
    upload = {"file": ("a.txt", io.BytesIO(b"secret"))}
    answer = client.post("/v1/files", files=upload, data={"purpose": "user_data"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def listed_for(client: httpx.Client) -> set[str]:
    return {file["id"] for file in client.get("/v1/files").json()["data"]}


def test_another_callers_file_does_not_exist(clients: dict[str, httpx.Client]) -> None:
    alices, bobs = upload_as(clients["alice"]), upload_as(clients["bob"])
    for path in (f"/v1/files/{alices}", f"/v1/files/{alices}/content"):
        assert clients["bob"].get(path).status_code == 404
        assert clients["alice"].get(path).status_code == 200
    refused = clients["bob"].delete(f"/v1/files/{alices}")
    unknown = clients["bob"].delete(f"/v1/files/{alices[::-1]}")
    assert refused.status_code == unknown.status_code == 404
    assert refused.json()["error"]["code"] == unknown.json()["error"]["code"]
    assert listed_for(clients["alice"]) == {alices}
    assert listed_for(clients["bob"]) == {bobs}
    assert listed_for(clients["root"]) == {alices, bobs}
    assert clients["root"].get(f"/v1/files/{alices}/content").content == b"secret"


def test_another_callers_upload_does_not_exist(clients: dict[str, httpx.Client]) -> None:
    body = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
    upload = clients["alice"].post("/v1/uploads", json=body).json()["id"]
    part = {"data": ("blob", b"x")}
    tried = [
        clients["bob"].post(f"/v1/uploads/{upload}/parts", files=part),
        clients["bob"].post(f"/v1/uploads/{upload}/complete", json={"part_ids": ["x"]}),
        clients["bob"].post(f"/v1/uploads/{upload}/cancel"),
    ]
    assert [answer.status_code for answer in tried] == [404, 404, 404]
    assert clients["alice"].post(f"/v1/uploads/{upload}/cancel").status_code == 200


def test_the_store_of_a_test_is_the_one_of_the_api(rig: Rig, client: OpenAI) -> None:
    """What the batch runner reads."""
    file = create(client)
    files = FileStore(rig.settings, rig.redis)
    assert files.path(file.id).read_bytes() == LINES
    assert files.record(file.id).filename == "in.jsonl"


@pytest.mark.parametrize("boundary", ["xyz", "abc"])
def test_a_repeated_upload_with_an_idempotency_key_makes_one_file(
    rig: Rig, client: OpenAI, boundary: str
) -> None:
    body = form(('name="purpose"', b"batch"), ('name="file"; filename="a.jsonl"', LINES))

    def post(content: bytes, boundary: str) -> httpx.Response:
        kind = f"multipart/form-data; boundary={boundary}"
        headers = {"Content-Type": kind, "Idempotency-Key": "one"}
        return rig.http.post("/v1/files", content=content, headers=headers)

    first = post(body, "xyz")
    again = post(body.replace(b"xyz", boundary.encode()), boundary)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert post(body.replace(LINES, b"{}"), "xyz").status_code == 422
    assert len(client.files.list().data) == 1
