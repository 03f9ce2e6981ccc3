"""What a job costs in Redis: commands that clients send; those of a script count as its one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.helpers.server import Server

MAX_COMMANDS = 25
NUM_JOBS = 100


def completion(client: httpx.Client) -> Any:
    return client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 1})


def stream(client: httpx.Client) -> Any:
    body = {"prompt": "hello", "max_tokens": 8, "stream": True}
    return client.post("/v1/completions", json=body)


def token_count(client: httpx.Client) -> Any:
    return client.post("/v1/internal/token-count", json={"prompt": "hello"})


@pytest.mark.parametrize("ask", [completion, stream, token_count])
def test_a_small_job_costs_few_commands(server: Server, ask: Callable[[httpx.Client], Any]) -> None:
    server.load("fake")
    commands: Counter[str] = Counter()
    with (
        httpx.Client(base_url=server.url, timeout=60) as client,
        Redis.from_url(server.redis_url, protocol=2) as redis,
        redis.monitor() as monitor,
    ):
        for _ in range(NUM_JOBS):
            assert ask(client).status_code == 200
        redis.echo("the end")
        while (seen := monitor.next_command())["command"] != "ECHO the end":
            if seen["client_type"] != "lua":
                commands[seen["command"].split()[0]] += 1
    print({name: count / NUM_JOBS for name, count in commands.most_common()})
    assert commands.total() / NUM_JOBS <= MAX_COMMANDS, "the heartbeats of all processes included"
