"""Whatever is sent: an answer of ours, never a 5xx, and the worker is not touched.

``make fuzz`` sends 10 000 requests, each time others; the test run a few hundred, the same. They
go to the fake engine and to models of the world, each with other requests.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from api.app import create_app
from api.dialects.anthropic.errors import is_anthropic
from api.dialects.ollama.errors import is_ollama
from jobs.settings import Settings
from tests.fuzz.hostile import Sent, requests_of
from tests.helpers.anthropic_bodies import check_anthropic_error
from tests.helpers.server import Server, make_server
from tests.integration.api_rig import check_error_shape
from tests.world.talkers import TALKERS, Talker

NUM_BODIES = int(os.environ.get("MGS_FUZZ_BODIES", "300"))
IS_LONG = "MGS_FUZZ_BODIES" in os.environ
TIMEOUT_S = 60.0

SENT = requests_of(create_app(Settings(REDIS_URL="redis://nowhere", fake_engine=True)))


# Templates, vocabularies and engines of the world beside the fake one.
MODELS: list[Talker | None] = [None, *(TALKERS if IS_LONG else TALKERS[::6])]


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    found = make_server(MGS_REQUEST_TIMEOUT_S="600", MGS_PULL="false")
    found.start_all()
    yield found
    found.stop()


@pytest.fixture(params=MODELS, ids=lambda one: one.name if one else "fake")
def server(running: Server, request: pytest.FixtureRequest) -> Iterator[Server]:
    talker: Talker | None = request.param
    if talker is None:
        running.load("fake")
    else:
        talker.write(running.folder / "models")
        running.load(talker.name, context_length=512)
    yield running
    running.unload_all()


# The description of a body with all parameters is long; nobody reads it.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.timeout(3600)
def test_no_request_gets_a_5xx_or_ends_the_worker(server: Server) -> None:
    statuses: Counter[int] = Counter()
    before = server.processes_by_id()["0"]
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S) as client:

        @seed(zlib.crc32(before["model_name"].encode()) if not IS_LONG else secrets.randbits(32))
        @settings(
            max_examples=NUM_BODIES // len(MODELS),
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(SENT)
        def send_one(sent: Sent) -> None:
            statuses[check(client, sent)] += 1

        send_one()
    print(dict(sorted(statuses.items())))
    after = server.processes_by_id()
    assert after["0"]["process_id"] == before["process_id"], "the worker was restarted"
    assert server.chat("hello", max_tokens=8).status_code == 200


def check(client: httpx.Client, sent: Sent) -> int:
    """Send it and look at the answer; its status."""
    answer = client.request(
        sent.method, sent.path, params=sent.params, headers=sent.headers, content=sent.content
    )
    assert answer.status_code < 500, answer.text[:2000]
    if answer.status_code >= 400:
        _check_error(sent.path, answer.json())
    elif answer.headers.get("content-type", "").startswith("text/event-stream"):
        for line in answer.text.splitlines():
            if line.startswith(('data: {"error"', 'data: {"type":"error"')):
                code = _check_error(sent.path, json.loads(line[6:]))
                assert code not in ("internal_error", "worker_lost", "bad_contract"), line
    return answer.status_code


def _check_error(path: str, body: Any) -> str:
    """The error's code, once the body has the shape that the route's clients know."""
    if is_anthropic(path):
        return check_anthropic_error(body)
    if is_ollama(path):
        assert set(body) == {"error", "code", "param"}
        return str(body["code"])
    check_error_shape(body)
    return str(body["error"]["code"])
