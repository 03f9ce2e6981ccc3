"""Batches of several API keys: a batch is its owner's, and uses what its key may use."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, NotFoundError, OpenAI, PermissionDeniedError
from openai.types import Batch

from jobs.keys.editing import add_key, remove_key
from tests.helpers.batches import CHAT, ENDED, chat_line, jsonl
from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
RESPONSE_ENDS = ("completed", "incomplete")  # of its 20 tokens
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
    entries += [_entry("dora"), _entry("root", "is_manager = true")]
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


def _start(client: OpenAI, num_lines: int, model: str = "fake") -> Batch:
    data = jsonl(chat_line(n, model) for n in range(num_lines))
    file = client.files.create(file=("a.jsonl", io.BytesIO(data)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


def _end_of(client: OpenAI, batch_id: str) -> Batch:
    wait_until(lambda: client.batches.retrieve(batch_id).status in ENDED, "the batch has ended", 60)
    return client.batches.retrieve(batch_id)


def _run(client: OpenAI) -> Batch:
    return _end_of(client, _start(client, 5).id)


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


def test_what_was_accepted_of_a_key_that_is_removed_runs_to_its_end(server: Server) -> None:
    """A stream, a background job and a batch; what comes later is refused."""
    file = Path(server.env["MGS_KEYS_FILE"])
    dora, root = _client(server, "dora"), _client(server, "root")
    hello: Any = {
        "model": "fake-20ms",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "max_tokens": 150,
        "extra_body": {"ignore_eos": True},
    }
    undisturbed = dora.chat.completions.create(**hello).choices[0].message.content
    stream = dora.chat.completions.create(**hello, stream=True)
    texts = [next(stream).choices[0].delta.content]
    later = dora.responses.create(
        model="fake-20ms", input="hello", background=True, max_output_tokens=20
    )
    batch = _start(dora, 60, "fake-20ms")
    wait_until(lambda: root.batches.retrieve(batch.id).status == "in_progress", "its lines run")
    remove_key(file, "dora")
    wait_until(lambda: _is_refused(dora), "the key is refused")
    assert root.batches.retrieve(batch.id).request_counts.completed < 60
    chunks = list(stream)
    texts += [chunk.choices[0].delta.content for chunk in chunks]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert "".join(text or "" for text in texts) == undisturbed
    ended = _end_of(root, batch.id)
    assert (ended.status, ended.request_counts.completed) == ("completed", 60)
    wait_until(lambda: root.responses.retrieve(later.id).status in RESPONSE_ENDS, "the response")
    again = _client(server, add_key(file, "dora", {}))
    wait_until(lambda: not _is_refused(again), "a new key of that name")
    assert again.batches.retrieve(batch.id).status == "completed"
    assert ended.output_file_id is not None
    assert len(again.files.content(ended.output_file_id).text.splitlines()) == 60


def _is_refused(client: OpenAI) -> bool:
    try:
        client.models.list()
    except AuthenticationError:
        return True
    return False
