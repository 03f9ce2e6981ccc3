"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import workers.rq_bridge.queue_consumer
from api.execution.services import Services
from jobs.settings import Settings
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.store import JobStore
from tests.helpers.driver import Driver
from tests.helpers.samples import settings_for
from tests.helpers.sdk import openai_client
from tests.helpers.supervised import Supervised, supervised
from tests.integration.api_rig import Rig, running_api
from workers.supervision.recovery import Recovery

# The API.


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A real API over the tests' Redis; nothing is loaded yet."""
    with running_api(tmp_path, redis_url) as running:
        yield running


@pytest.fixture
def client(rig: Rig) -> Iterator[OpenAI]:
    with openai_client(rig.url, timeout_s=20) as client:
        yield client


@pytest.fixture
async def services(rig: Rig) -> AsyncIterator[Services]:
    """A second API process, without its HTTP."""
    found = Services.create(rig.settings)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def background() -> Iterator[Any]:
    """Calls a function in a thread of its own; gives a future."""
    with ThreadPoolExecutor(4) as threads:
        yield threads.submit


# What lies in Redis.


@pytest.fixture
def redis(redis_url: str) -> Iterator[SyncRedis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return settings_for(redis_url, tmp_path)


@pytest.fixture
def store(redis: SyncRedis, settings: Settings) -> JobStore:
    return JobStore(redis, settings)


@pytest.fixture
def recovery(store: JobStore, settings: Settings) -> Recovery:
    return Recovery(store, settings)


# Workers.


@pytest.fixture
def running(redis_url: str, tmp_path: Path) -> Iterator[Supervised]:
    """A supervisor with nothing loaded."""
    with supervised(redis_url, tmp_path) as found:
        yield found


@pytest.fixture
def driver(running: Supervised) -> Driver:
    return running.driver


@pytest.fixture
def short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that looks up from its empty queue twenty times a second."""
    monkeypatch.setattr(workers.rq_bridge.queue_consumer, "_BLOCK_S", 0.05)
