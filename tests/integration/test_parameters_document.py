"""docs/parameters.md, line by line over HTTP: what it says of a field is what the job gets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from redis import Redis

from api.dialects.anthropic.schema import MessagesBody
from api.dialects.llama_server.schema import InfillBody, NativeCompletionBody
from api.dialects.ollama.schema import OllamaChatBody, OllamaTextBody
from api.dialects.openai.generation.schema import ChatBody, CompletionBody
from api.dialects.refused_fields import REFUSED
from api.dialects.responses.schema import ResponseBody
from api.dialects.shared_fields import SharedFields
from api.execution.submissions import Order
from api.web.base_schema import Body
from jobs.contract.records import JobRecord
from jobs.contract.requests import GenerateRequest, GenerationDefaults
from jobs.storage import names
from tests.conftest import RedisServer
from tests.helpers.parameters_document import (
    BODIES,
    ROUTES,
    Row,
    refused,
    rows,
    without_effect,
)
from tests.helpers.told import told
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, running_api

FIELDS: dict[str, list[type[Body]]] = {
    "chat": [ChatBody],
    "completions": [CompletionBody],
    "responses": [ResponseBody, SharedFields],
    "messages": [MessagesBody, SharedFields],
    "completion": [NativeCompletionBody],
    "infill": [InfillBody],
    "api_chat": [OllamaChatBody],
    "api_generate": [OllamaTextBody],
}
# Unlike what is off, so that a value that switches something off is not as good as none.
DEFAULTS = GenerationDefaults(
    temperature=0.3,
    max_tokens=99,
    top_p=0.8,
    repetition_penalty=1.3,
    repetition_context_size=33,
    logit_bias={1: 2.0},
)
LARGEST_GIVEN_SEED = 1000
ROWS = rows()
TRIED = [row for row in ROWS if row.example is not None or row.odd]
EXAMPLES = [row for row in ROWS if row.example is not None]


Jobs = Callable[[str, dict[str, Any]], tuple[GenerateRequest, Order]]


@pytest.fixture(scope="module")
def rig(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One API for the whole module."""
    with Redis.from_url(redis_server.url, protocol=2) as client:
        client.flushall()
    with running_api(tmp_path_factory.mktemp("api"), redis_server.url) as running:
        running.load(defaults=DEFAULTS)
        yield running


@pytest.fixture(scope="module")
def jobs(rig: Rig) -> Jobs:
    """The jobs of bodies; each body is sent once."""
    found: dict[str, tuple[GenerateRequest, Order]] = {}

    def get(route: str, fields: dict[str, Any]) -> tuple[GenerateRequest, Order]:
        key = route + json.dumps(fields)
        if key not in found:
            found[key] = job_of(rig, route, fields)
        return found[key]

    return get


def job_of(rig: Rig, route: str, fields: dict[str, Any]) -> tuple[GenerateRequest, Order]:
    """The job that a worker gets, and its order; a seed that was drawn is shown as 0."""
    path, body = BODIES[route]
    future = rig.post_soon(path, {**body, **fields})
    queue = wait_until(lambda: "refused" if future.done() else queue_in_use(rig), "a job")
    assert not future.done(), future.result().text
    job = rig.take(queue)
    order = order_of(rig.record(job.job_id))
    job.cancelled()
    future.result()
    request: GenerateRequest = job.request
    seed = request.sampling.seed
    if seed > LARGEST_GIVEN_SEED:
        sampling = msgspec.structs.replace(request.sampling, seed=0)
        request = msgspec.structs.replace(request, sampling=sampling)
    return request, order


def queue_in_use(rig: Rig) -> str | None:
    """The queue of generations that holds the job."""
    queues = (names.generation_queue("0"), names.batch_queue("0"))
    return next((name for name in queues if rig.redis.llen(rig.store.queue(name).key)), None)


def order_of(record: JobRecord) -> Order:
    """When the job runs; the deadline in whole seconds after it was made."""
    deadline_s = None
    if record.deadline_at is not None:
        deadline_s = math.ceil(record.deadline_at - record.created_at)
    return Order(record.job_class, record.priority, deadline_s)


def check_refused(rig: Rig, route: str, field: str, fields: dict[str, Any]) -> str:
    """That the field is refused by its name; the message."""
    path, body = BODIES[route]
    answer = rig.post(path, {**body, **fields})
    assert answer.status_code == 400, answer.text
    message, param = told(answer)
    assert param == field or param.startswith((f"{field}.", f"{field}[")), answer.text
    return message


def named(row: Row) -> str:
    return f"{row.route} {row.field}"


@pytest.mark.parametrize("row", EXAMPLES, ids=named)
def test_an_example_changes_the_job(jobs: Jobs, row: Row) -> None:
    assert row.example is not None
    assert jobs(row.route, row.example) != jobs(row.route, row.others)


@pytest.mark.parametrize("row", TRIED, ids=named)
def test_null_is_as_good_as_nothing(rig: Rig, jobs: Jobs, row: Row) -> None:
    if any(odd.value is None for odd in row.odd):
        check_refused(rig, row.route, row.field, {**row.others, row.field: None})
    else:
        given = jobs(row.route, {**row.others, row.field: None})
        assert given == jobs(row.route, row.others)


@pytest.mark.parametrize("row", [row for row in TRIED if row.odd], ids=named)
def test_other_values_mean_what_the_document_says(rig: Rig, jobs: Jobs, row: Row) -> None:
    nothing = jobs(row.route, row.others)
    for odd in row.odd:
        fields = {**row.others, row.field: odd.value}
        if odd.is_refused:
            check_refused(rig, row.route, row.field, fields)
        elif odd.is_nothing:
            assert jobs(row.route, fields) == nothing, odd
        elif odd.has_same:
            same = {**row.others, row.field: odd.same}
            assert jobs(row.route, fields) == jobs(row.route, same), odd
        else:
            assert jobs(row.route, fields) != nothing, odd


@pytest.mark.parametrize("route", ROUTES)
def test_hints_change_nothing(jobs: Jobs, route: str) -> None:
    nothing = jobs(route, {})
    for name, value in without_effect():
        assert jobs(route, {name: value}) == nothing, name


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_refused_is_told_by_its_name_and_why(rig: Rig, route: str) -> None:
    for line in refused():
        message = check_refused(rig, route, line.field, {line.field: line.value})
        assert message == f"{line.field}: {line.reason}"
    options = {"options": {"min_keep": 5}}
    assert check_refused(rig, route, "options", options).startswith("options.min_keep: ")


@pytest.mark.parametrize("route", ROUTES)
def test_what_asks_for_nothing_is_taken(jobs: Jobs, route: str) -> None:
    nothing = jobs(route, {})
    taken = {line.field: line.taken[-1] for line in refused() if line.taken}
    assert jobs(route, taken) == nothing
    assert jobs(route, dict.fromkeys(REFUSED)) == nothing


def test_the_document_has_every_refusal() -> None:
    written = {line.field: (line.reason, tuple(line.taken)) for line in refused()}
    assert written == {name: (one.reason, one.neutral) for name, one in REFUSED.items()}


@pytest.mark.parametrize("route", ROUTES)
def test_the_document_has_every_field_of_every_route(route: str) -> None:
    routes = {route, "templated"} if route == "completions" else {route}
    written = {row.field for row in ROWS if row.route in routes}
    written |= {name for name, _ in without_effect()} | REFUSED.keys()
    read = {
        field.alias or name for kind in FIELDS[route] for name, field in kind.model_fields.items()
    }
    assert read <= written
