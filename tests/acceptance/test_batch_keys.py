"""Batches of several API keys: a batch is its owner's, and uses what its key may use."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI, PermissionDeniedError
from openai.types import Batch

from tests.helpers.batches import CHAT, ENDED, chat_line, jsonl
from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
_KEYS = """
[[keys]]
name = "{name}"
sha256 = "{digest}"
{more}
"""


def _entry(name: str, more: str = "") -> str:
    return _KEYS.format(name=name, digest=hashlib.sha256(name.encode()).hexdigest(), more=more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = Path(tmp_path_factory.mktemp("keys")) / "keys.toml"
    entries = [_entry("anna"), _entry("ben", 'models = ["demo*"]')]
    entries.append(_entry("carl", 'classes = ["interactive"]'))
    file.write_text("".join(entries))
    file.chmod(0o600)
    server = make_server(MGS_KEYS_FILE=str(file))
    for name, module in (
        ("redis", "jobs.embedded_redis.launcher"),
        ("web", "api"),
        ("workers", "workers.supervision.supervisor"),
        ("batches", "api.batch_runner"),
    ):
        server.start(name, module)
    try:
        yield server
    finally:
        server.stop()


def _client(server: Server, key: str) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=10, timeout=20)


def _run(client: OpenAI) -> Batch:
    data = jsonl(chat_line(n) for n in range(5))
    file = client.files.create(file=("a.jsonl", io.BytesIO(data)), purpose="batch")
    created = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    wait_until(
        lambda: client.batches.retrieve(created.id).status in ENDED, "the batch has ended", 60
    )
    return client.batches.retrieve(created.id)


def test_a_batch_and_its_output_are_its_owners(server: Server) -> None:
    anna, ben = _client(server, "anna"), _client(server, "ben")
    batch = _run(anna)
    assert batch.status == "completed"
    assert batch.id in {one.id for one in anna.batches.list()}
    assert batch.id not in {one.id for one in ben.batches.list()}
    for call in (ben.batches.retrieve, ben.batches.cancel):
        with pytest.raises(NotFoundError):
            call(batch.id)
    assert batch.output_file_id is not None
    with pytest.raises(NotFoundError):
        ben.files.content(batch.output_file_id)
    with pytest.raises(NotFoundError):
        ben.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )


def test_a_model_that_the_key_may_not_use_fails_the_batch(server: Server) -> None:
    batch = _run(_client(server, "ben"))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert (batch.status, batch.errors.data[0].code) == ("failed", "model_not_found")


def test_a_key_without_the_class_makes_no_batches(server: Server) -> None:
    with pytest.raises(PermissionDeniedError):
        _run(_client(server, "carl"))
