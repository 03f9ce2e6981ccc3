"""Waiting for a Redis that is late, absent, or locked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from jobs.connection import connect, connect_async, wait_for_redis
from jobs.errors import NotReadyError
from tests.helpers.private_redis import private_redis


@pytest.mark.parametrize("given", ["", ":wrong@"])
def test_a_password_that_is_not_right_is_said_at_once(given: str) -> None:
    with private_redis() as server:
        owner = connect(server.url)
        owner.config_set("requirepass", "right")
        client = connect(server.url.replace("unix://", f"unix://{given}"))
        start = time.monotonic()
        with pytest.raises(NotReadyError, match="Redis refuses"):
            wait_for_redis(client, timeout_s=60)
        assert time.monotonic() - start < 30
        client.close()
        owner.close()


def test_a_server_that_is_not_there_is_waited_for_and_then_named(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path / 'none'}?db=0", retries=0)
    with pytest.raises(NotReadyError, match="does not answer"):
        wait_for_redis(client, timeout_s=0.1)
    client.close()


def test_a_thousand_commands_at_once_are_all_answered(redis_url: str) -> None:
    async def ask_all() -> list[bytes | None]:
        client = connect_async(redis_url)
        await client.set("k", "v")
        try:
            return await asyncio.gather(*(client.get("k") for _ in range(1000)))
        finally:
            await client.aclose()

    assert asyncio.run(ask_all()) == [b"v"] * 1000
