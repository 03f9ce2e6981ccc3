"""What is refused, or fails on its way to the queue, leaves nothing in Redis and runs no job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from api.execution.client_job import ClientJob
from api.execution.runner import Ticket
from api.execution.services import Services
from api.execution.submissions import new_ticket
from jobs.contract.errors import ModelUnloadedError, QueueFullError
from jobs.contract.records import DesiredModel, JobStatus
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import Sampling
from jobs.storage import names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

LONG = "x" * 100_000
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": LONG}]}
POSTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"input": LONG}),
    ("/v1/messages", {**CHAT, "max_tokens": 5}),
    ("/v1/chat/completions", CHAT),
]


@pytest.fixture
def full(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A queue without room for another job."""
    with running_api(tmp_path, redis_url, max_queued_per_model=1) as rig:
        rig.load()
        assert rig.post("/v1/responses", {"input": "hi", "background": True}).status_code == 200
        yield rig


def keys(rig: Rig) -> set[str]:
    """All in Redis but the API's own heartbeat."""
    found = {key.decode() for key in rig.redis.keys("*")}
    return {key for key in found if not key.startswith(names.api_key(""))} - {names.APIS}


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"background": True}])
@pytest.mark.parametrize(("path", "body"), POSTS, ids=[path for path, _ in POSTS])
def test_what_a_full_queue_refuses_leaves_no_key(
    full: Rig, path: str, body: dict[str, Any], how: dict[str, Any]
) -> None:
    before = keys(full)
    answers = [full.post(path, {**body, **how}) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {429}
    assert keys(full) == before


def ticket_for(services: Services, desired: DesiredModel) -> Ticket:
    request = GenerateRequest(prompts=[Prompt(text="x")], sampling=Sampling())
    return new_ticket(services.runner, desired, request, is_background=True)


async def test_a_job_whose_acceptance_is_never_heard_of_is_taken_back(
    rig: Rig, services: Services
) -> None:
    """The client is told 503 and asks again: nobody would ever read the first job."""
    ticket = ticket_for(services, rig.load())
    send = services.redis.execute_command
    replies_lost = 0

    async def lose_reply(*args: Any, **options: Any) -> Any:
        nonlocal replies_lost
        found = await send(*args, **options)
        if args[0] == "EVALSHA" and not replies_lost:
            replies_lost += 1
            raise RedisTimeoutError("no answer in time")
        return found

    services.redis.execute_command = lose_reply
    with pytest.raises(RedisTimeoutError):
        await services.runner.submit_ticket(ticket)
    assert replies_lost == 1
    await asyncio.to_thread(
        wait_until,
        lambda: rig.record(ticket.job_id).status is JobStatus.CANCELLED,
        "the job is taken back",
    )
    assert rig.waiting_ids() == []


async def test_what_cannot_be_checked_after_its_acceptance_is_accepted(
    rig: Rig, services: Services
) -> None:
    ticket = ticket_for(services, rig.load())
    rig.redis.hset(names.DESIRED_MODELS, "0", b"of another version")
    await services.runner.submit_ticket(ticket)
    assert rig.waiting_ids() == [ticket.job_id]


async def test_a_response_whose_model_went_away_meanwhile_is_not_stored(
    rig: Rig, services: Services
) -> None:
    ticket = ticket_for(services, rig.load())
    key = names.response_key("resp_1")
    stored = {"stored_key": key, "stored_data": b"what was asked", "stored_ttl_s": 60}
    ticket = replace(ticket, submission=replace(ticket.submission, **stored))
    rig.desired_models.remove("0")
    with pytest.raises(ModelUnloadedError):
        await services.runner.submit_ticket(ticket)
    assert not rig.redis.exists(key)


async def test_who_waits_for_a_refused_job_cancels_none(full: Rig) -> None:
    """To look for a job that was never there is a load more on who sheds some."""
    services = Services.create(full.settings)
    await services.start()
    desired = full.desired_models.get("0")
    assert desired is not None
    waiting = ClientJob(services.runner, ticket_for(services, desired), 20.0)
    with pytest.raises(QueueFullError):
        await waiting.run(never).__aenter__()
    before = num_scripts(full)
    await services.stop()  # carries out what cancels are under way
    assert num_scripts(full) == before


async def never() -> Any:
    await asyncio.Event().wait()


def num_scripts(rig: Rig) -> int:
    return int(rig.redis.info("commandstats")["cmdstat_evalsha"]["calls"])
