"""Files of a server whose API is killed in the middle of an upload."""

from __future__ import annotations

import socket
from pathlib import Path

from openai import OpenAI

from tests.helpers.sdk import openai_client
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

LINES = b'{"custom_id": "a"}\n' * 100_000


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name != "uid"}


def wait_for_files(folder: Path, names: set[str], what: str, *, are_more: bool = False) -> None:
    wait_until(
        lambda: (files_below(folder) > names) if are_more else files_below(folder) == names, what
    )


def begin_upload(server: Server) -> socket.socket:
    """Half of a form."""
    begin = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + LINES
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    client.sendall(
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=xyz\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (2 * len(begin), begin)
    )
    return client


def create(client: OpenAI) -> str:
    return client.files.create(file=("in.jsonl", LINES), purpose="batch").id


def test_nothing_of_an_upload_is_listed_or_left_after_a_kill_of_the_api(
    own_server: Server,
) -> None:
    folder = own_server.folder / "state" / "files"
    with openai_client(own_server.url) as client:
        kept = {create(client)}
        for _ in range(3):
            whole = files_below(folder)
            with begin_upload(own_server):
                wait_for_files(folder, whole, "a part of the file on disk", are_more=True)
                own_server.processes["web"].kill()
                own_server.processes["web"].wait()
            own_server.start("web", "api")
            wait_until(own_server.is_ready, "the API again")
            assert {file.id for file in client.files.list()} == kept
            wait_for_files(folder, whole, "the part to be removed")
            kept.add(create(client))
        assert {file.id for file in client.files.list()} == kept
        assert all(client.files.content(file_id).content == LINES for file_id in kept)
