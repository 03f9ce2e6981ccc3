"""The API's own tasks: what breaks one down costs a moment, and never in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from api.execution import client_job
from api.execution.client_job import ClientJob
from api.execution.presence import ApiHeartbeat
from api.execution.services import Services
from api.execution.submissions import new_ticket
from jobs import asyncio_tasks
from jobs.contract.errors import JobError
from jobs.contract.records import JobStatus
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import Sampling
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect, connect_async
from jobs.storage.contact import RedisContact
from jobs.stream.hub import EventHub
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig

WAIT_S = 20.0
REQUEST = GenerateRequest(prompts=[Prompt(text="x")], sampling=Sampling())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_tasks, "_PAUSE_S", 0.01)


class Odd:
    """Stands for a library's method: the first call raises what nobody has thought of."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.num_calls = 0
        self._method = method

    def __call__(self, *args: Any, **fields: Any) -> Any:
        self.num_calls += 1
        if self.num_calls == 1:
            raise RuntimeError("nobody has thought of this")
        return self._method(*args, **fields)


async def test_a_subscription_connection_that_breaks_down_oddly_is_made_anew(
    redis_url: str,
) -> None:
    redis, subscriber = connect_async(redis_url), connect_async(redis_url, retries=0)
    pool = subscriber.connection_pool
    pool.make_connection = odd = Odd(pool.make_connection)
    hub = EventHub(redis, subscriber)
    await hub.start()
    async with asyncio.timeout(WAIT_S), hub.subscribe("cmpl-1"):
        assert odd.num_calls == 2
    await hub.stop()
    for client in (redis, subscriber):
        await client.aclose()


async def test_an_api_whose_heartbeat_breaks_down_oddly_goes_on(redis_url: str) -> None:
    redis = connect_async(redis_url)
    redis.pipeline = Odd(redis.pipeline)
    heartbeat = ApiHeartbeat(redis, "api-odd", 60.0, RedisContact())
    heartbeat.start()
    watching: SyncRedis = connect(redis_url)
    await asyncio.to_thread(
        wait_until, lambda: watching.exists(names.api_key("api-odd")), "the API sends heartbeats"
    )
    await heartbeat.stop()
    await redis.aclose()


async def test_a_job_whose_client_cannot_be_watched_is_ended(rig: Rig, services: Services) -> None:
    ticket = new_ticket(services.runner, rig.load(), REQUEST)

    async def receive() -> Any:
        raise RuntimeError("the server has lost the connection")

    async def read() -> None:
        async with ClientJob(services.runner, ticket, WAIT_S).run(receive) as events:
            async for _ in events:
                pass

    with pytest.raises(JobError, match="could not be watched"):
        await asyncio.create_task(read())
    await asyncio.to_thread(
        wait_until,
        lambda: rig.record(ticket.job_id).status is JobStatus.CANCELLED,
        "the job is cancelled",
    )


def test_an_unreadable_desired_model_does_not_end_the_look_at_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_job, "_FIRST_CHECK_S", 0.0)
    monkeypatch.setattr(client_job, "_CHECK_S", 0.01)
    rig.load()
    future = rig.chat_soon()
    wait_until(rig.waiting_ids, "the job is queued")
    rig.redis.hset(names.DESIRED_MODELS, "0", b"no desired model")
    reads = partial(num_calls, rig.redis, "hget")
    before = reads()
    wait_until(lambda: reads() >= before + 2, "the desired model is looked at")
    rig.redis.hdel(names.DESIRED_MODELS, "0")
    answer = future.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "model_unloaded")


def num_calls(redis: SyncRedis, command: str) -> int:
    found = redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])
