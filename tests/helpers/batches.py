"""Batches in tests: input lines, a server with the process that works on them, results."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from openai import OpenAI
from openai.types import Batch

from tests.helpers.sdk import openai_client
from tests.helpers.server import Server, make_server
from tests.helpers.waiting import wait_until

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def chat_line(number: int, model: str = "fake", **fields: Any) -> dict[str, Any]:
    """A line of the input; its custom_id is ``r<number>``."""
    messages = [{"role": "user", "content": f"hello {number}"}]
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 4, **fields}
    return line(f"r{number}", CHAT, body)


def line(custom_id: str, url: str, body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def batch_server(**env: str) -> Server:
    """A complete server, started, with the process for batches."""
    server = make_server(**env)
    server.start_all()
    server.start("batches", "api.batch_runner")
    return server


class Batches:
    """OpenAI's client, and what tests do with batches."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.client: OpenAI = openai_client(server.url, is_strict=False, timeout_s=20)

    def create(self, data: bytes, endpoint: Any = CHAT, **fields: Any) -> Batch:
        file = self.client.files.create(
            file=("input.jsonl", io.BytesIO(data), "application/jsonl"), purpose="batch"
        )
        return self.client.batches.create(
            input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields
        )

    def end_of(self, batch_id: str, timeout_s: float = 60) -> Batch:
        def has_ended() -> bool:
            return self.client.batches.retrieve(batch_id).status in ENDED

        wait_until(has_ended, f"the end of {batch_id}", timeout_s)
        return self.client.batches.retrieve(batch_id)

    def num_ended(self, batch_id: str) -> int:
        counts = self.client.batches.retrieve(batch_id).request_counts
        return counts.completed + counts.failed

    def wait_for(self, batch_id: str, num_ended: int) -> None:
        wait_until(lambda: self.num_ended(batch_id) >= num_ended, f"{num_ended} lines have ended")

    def run(self, lines: Iterable[Any], endpoint: Any = CHAT, **fields: Any) -> Batch:
        return self.end_of(self.create(jsonl(lines), endpoint, **fields).id)

    def content(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        return [json.loads(one) for one in self.client.files.content(file_id).text.splitlines()]

    def output(self, batch: Batch) -> list[dict[str, Any]]:
        return self.content(batch.output_file_id)

    def errors(self, batch: Batch) -> list[dict[str, Any]]:
        return self.content(batch.error_file_id)


def told(answer: dict[str, Any]) -> Any:
    """What an answer says, without what differs from run to run."""
    response = answer["response"] or {}
    body = response.get("body") or {}
    return response.get("status_code"), body.get("choices"), body.get("error"), answer["error"]
