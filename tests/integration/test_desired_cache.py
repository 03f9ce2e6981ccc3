"""Desired models are kept: not read again while nothing has changed, and never old for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import api.execution.desired_cache
from api.execution.desired_cache import DesiredCache
from jobs.contract.records import DesiredModel
from jobs.contract.requests import LoadRequest
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect, connect_async
from jobs.storage.desired_models import DesiredModels
from jobs.stream.hub import EventHub

WAIT_S = 20.0
DESIRED = DesiredModel("0", "uid", LoadRequest("fake", "fake"), "load-1", 1.0)


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[DesiredCache]:
    redis, subscriber = connect_async(redis_url), connect_async(redis_url, retries=0)
    hub = EventHub(redis, subscriber)
    await hub.start()
    async with asyncio.timeout(WAIT_S):
        while hub.num_wakeups is None:
            await asyncio.sleep(0)
    yield DesiredCache(redis, hub)
    await hub.stop()
    for client in (redis, subscriber):
        await client.aclose()


def num_reads(redis: SyncRedis) -> int:
    return int(redis.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])


async def test_what_has_not_changed_is_read_once(
    cache: DesiredCache, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.execution.desired_cache, "_MAX_AGE_S", 1000.0)
    redis = connect(redis_url)
    assert DesiredModels(redis).put("0", DESIRED)
    async with asyncio.timeout(WAIT_S):
        while await cache.read() != {"0": DESIRED}:
            await asyncio.sleep(0)
    before = num_reads(redis)
    for _ in range(10):
        assert await cache.read() == {"0": DESIRED}
    assert num_reads(redis) <= before + 1  # the wake-up of the change may still be on its way


async def test_a_changed_desired_model_is_read_at_its_wake_up(
    cache: DesiredCache, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.execution.desired_cache, "_MAX_AGE_S", 1000.0)
    desired_models = DesiredModels(connect(redis_url))
    for new in (DESIRED, None, DESIRED):
        assert desired_models.put("0", new) if new is not None else desired_models.remove("0")
        async with asyncio.timeout(WAIT_S):
            while (await cache.read()).get("0") != new:
                await asyncio.sleep(0)


async def test_a_lost_wake_up_is_made_up_for(
    cache: DesiredCache, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.execution.desired_cache, "_MAX_AGE_S", 0.05)
    redis = connect(redis_url)
    assert DesiredModels(redis).put("0", DESIRED)
    await cache.read()
    redis.delete(names.DESIRED_MODELS)  # nobody is woken
    async with asyncio.timeout(WAIT_S):
        while await cache.read():
            await asyncio.sleep(0)
