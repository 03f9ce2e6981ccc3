"""One entry in Redis that cannot be read, of every kind: it hides and stops nothing else.

It may come of another version, of a person at redis-cli, or of another application.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import pytest
from click.testing import CliRunner
from rq.cli.cli import main as rq_command

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from tests.faults.clients import body, expected
from tests.faults.rig import (
    direct_client,
    kill,
    running_server,
    submit,
    text_of,
    wait_ended,
    worker_pid,
)
from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

READINESS = "/health/ready"
LISTINGS = (
    "/v1/models",
    "/metrics",
    "/management/processes",
    "/management/debug/latest",
    "/props",
    "/slots",
    "/v1/jobs",
    "/v1/jobs?status=queued&limit=200",
    "/v1/jobs?model=fake",
    "/v1/internal/model/list",
    "/v1/internal/model/info",
)
OF_A_MODEL = ("/props", "/slots", "/v1/internal/model/info", "/v1/internal/model/cache_memory")
BUSY, PROBE = "busy", "probe"
ODD = "cmpl-" + "0" * 32
NOT_UTF8 = b"\xff\xfe"
FUTURE = "9999999999"

Command = tuple[str | bytes, ...]


@dataclass(frozen=True)
class Bad:
    """Commands that put a bad entry, and those that take it away.

    ``{waiting}`` is a job that waits behind another, ``{held}`` one in the hands of ``{worker}``,
    which will be killed, ``{ended}`` one that has ended, ``{response}`` a stored response. With
    ``is_renewed`` the entry is put again and again, as its owner writes it too. ``readiness`` is
    what ``/health/ready`` may say then, and not ``can_rq_read``: RQ's own tool stops at it.
    """

    put: tuple[Command, ...]
    drop: tuple[Command, ...] = ()
    is_renewed: bool = False
    readiness: tuple[int, ...] = (200,)
    can_rq_read: bool = True


def field(key: str, name: str | bytes, value: str | bytes) -> Bad:
    return Bad((("HSET", key, name, value),), (("HDEL", key, name),))


def member(key: str, value: str | bytes) -> Bad:
    return Bad((("SADD", key, value),), (("SREM", key, value),))


def scored(key: str, value: str | bytes, score: str = FUTURE) -> Bad:
    return Bad((("ZADD", key, score, value),), (("ZREM", key, value),))


def listed(put: Command, job_id: str | bytes = ODD) -> Bad:
    """A record that is none, of a job that every index and a queue knows."""
    indexes = ("mgs:jobs", "mgs:live", "mgs:expiry")
    queue = "rq:queue:mgs-gen-" + BUSY
    return Bad(
        (
            put,
            *(("ZADD", index, FUTURE, job_id) for index in indexes),
            ("RPUSH", queue, job_id),
        ),
        (
            *(("ZREM", index, job_id) for index in indexes),
            ("LREM", queue, "0", job_id),
            ("DEL", f"mgs:job:{ODD}"),
        ),
    )


def heartbeat(data: bytes) -> Bad:
    """Of a wanted model: whether its worker is ready is not known then."""
    return Bad((("SET", "mgs:worker:" + BUSY, data),), is_renewed=True, readiness=(200, 503))


def as_string(key: str) -> Bad:
    """Another type than ours under a job's key."""
    return Bad((("DEL", key), ("SET", key, "no such thing")), (("DEL", key),))


KINDS = {
    "a desired model that cannot be read": field("mgs:desired", "odd", b'{"v": "from the future"}'),
    "a desired model that is no JSON": field("mgs:desired", "odd", NOT_UTF8),
    "a desired model under a name that is no text": field("mgs:desired", NOT_UTF8, b"{}"),
    "a heartbeat of a worker": heartbeat(b'{"pid": "?"}'),
    "a heartbeat of a worker that is no text": heartbeat(NOT_UTF8),
    "a heartbeat of a node": Bad(
        (("ZADD", "mgs:node-index", FUTURE, "odd"), ("SET", "mgs:node:odd", b"[]")),
        (("ZREM", "mgs:node-index", "odd"), ("DEL", "mgs:node:odd")),
    ),
    "a node without a heartbeat": scored("mgs:node-index", "odd"),
    "a node whose name is no text": scored("mgs:node-index", NOT_UTF8),
    "a record with fields of nothing": listed(("HSET", f"mgs:job:{ODD}", "status", "sideways")),
    "a record with a field that is no text": listed(("HSET", f"mgs:job:{ODD}", NOT_UTF8, "x")),
    "a record with a time that is none": listed(
        ("HSET", f"mgs:job:{ODD}", "status", "queued", "created_at", "yesterday")
    ),
    "a record of another type": listed(("SET", f"mgs:job:{ODD}", "no such thing")),
    "a waiting job's record": field("mgs:job:{waiting}", "created_at", "yesterday"),
    "a held job's record": field("mgs:job:{held}", "attempt", "first"),
    "a request that is no JSON": Bad((("SET", "mgs:req:{waiting}", NOT_UTF8),)),
    "a request of another type": Bad(
        (("DEL", "mgs:req:{waiting}"), ("HSET", "mgs:req:{waiting}", "a", "b"))
    ),
    "a request of an ended job": Bad((("SET", "mgs:req:{ended}", b'{"v": 99}'),)),
    "an event that is no JSON": Bad((("XADD", "mgs:log:{ended}", "9-9", "e", NOT_UTF8),)),
    "an event without a line": Bad((("XADD", "mgs:log:{ended}", "9-9", "odd", "x"),)),
    "a log of another type": as_string("mgs:log:{waiting}"),
    "an event in a held job's log": Bad((("XADD", "mgs:log:{held}", "1-999", "e", "?"),)),
    "a total that is no number": field("mgs:totals", "jobs mgs.generate finished 0", "many"),
    "a sum that is no number": field("mgs:totals", "prompt_tokens 0", "many"),
    "a total of too few words": field("mgs:totals", "jobs x", "1"),
    "a total that is no text": field("mgs:totals", NOT_UTF8, "1"),
    "a total of a status that is none": field("mgs:totals", "jobs a b c d", "1.5"),
    "RQ's job with a time that is none": field("rq:job:{waiting}", "created_at", "yesterday"),
    "RQ's job with a status that is none": field("rq:job:{waiting}", "status", "sideways"),
    "RQ's job that is no text": field("rq:job:{waiting}", "origin", NOT_UTF8),
    "RQ's held job with a time that is none": field("rq:job:{held}", "created_at", "yesterday"),
    "RQ's held job with a status that is none": field("rq:job:{held}", "status", "sideways"),
    "RQ's job of another type": as_string("rq:job:{waiting}"),
    "an execution that is none": scored("rq:wip:mgs-gen-" + PROBE, "odd"),
    "an execution of a worker that is none": Bad(
        (("SADD", "rq:worker:{worker}:executions", NOT_UTF8, "odd"),)
    ),
    "a stored response that cannot be read": Bad(
        (("HSET", "mgs:response:{response}", "record", b'{"v": 99}'),)
    ),
    "a stored response of another type": as_string("mgs:response:{response}"),
    "a claim that is no text": member("mgs:claims:" + PROBE, NOT_UTF8),
    "a claim of nobody": member("mgs:claims:" + PROBE, "odd"),
    "a claim on a job that is none": member("mgs:claims:" + PROBE, f"probe.gen.0000|{ODD}"),
    "a name of an API process that is no text": member("mgs:apis", NOT_UTF8),
    "a job id that is no text": listed(("SET", "mgs:odd", "x"), NOT_UTF8),
    "a slug that is no text": member("mgs:slugs", NOT_UTF8),
    "a slug that is none": member("mgs:slugs", "../ *"),
    "a queue whose name is no text": replace(
        member("rq:queues", b"rq:queue:mgs-gen-" + NOT_UTF8), can_rq_read=False
    ),
    "an owner that is nobody": Bad((("SET", "mgs:owner:" + PROBE, NOT_UTF8, "EX", "2"),)),
    "a mark that is no text": Bad((("SET", "mgs:storage", NOT_UTF8),)),
}


@dataclass
class Scene:
    """A server with a model at rest, and a busy one with a job that waits."""

    server: Server
    redis: SyncRedis
    ids: dict[str, str]

    def send(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            self.redis.execute_command(*(self._filled(word) for word in command))

    def _filled(self, word: str | bytes) -> str | bytes:
        if isinstance(word, bytes):
            return word
        for name, value in self.ids.items():
            word = word.replace("{" + name + "}", value)
        return word

    @contextmanager
    def bad(self, bad: Bad) -> Iterator[None]:
        """The entry is there for the block."""
        is_over = threading.Event()

        def renew() -> None:
            while not is_over.wait(0.02):
                self.send(bad.put)

        self.send(bad.put)
        thread = threading.Thread(target=renew, daemon=True)
        if bad.is_renewed:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            if bad.is_renewed:
                thread.join(10)
            self.send(bad.drop)
            wait_until(self.server.is_ready, "its owner has written it anew")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Server, SyncRedis]]:
    with running_server() as server, direct_client(server.redis_url) as redis:
        server.load("fake")
        server.load("fake-20ms", BUSY, slots=1)
        yield server, redis


@pytest.fixture
def scene(shared: tuple[Server, SyncRedis]) -> Iterator[Scene]:
    server, redis = shared
    running = submit(server, body(8, 8000, ignore_eos=True), model_id=BUSY)
    waiting = submit(server, body(8, 8), model_id=BUSY)
    ended = submit(server, body(8, 8))
    wait_ended(server, ended)
    answer = server.post("/v1/responses", {"input": "one", "max_output_tokens": 4}).json()
    yield Scene(server, redis, {"waiting": waiting, "ended": ended, "response": answer["id"]})
    httpx.delete(f"{server.url}/v1/jobs/{running}", timeout=20)
    redis.delete("rq:queue:mgs-gen-" + BUSY, "mgs:response:" + answer["id"])
    for job_id in (waiting, ended):
        redis.delete(*(f"{kind}:{job_id}" for kind in ("mgs:job", "mgs:log", "mgs:req")))
    wait_until(lambda: redis.scard("mgs:claims:" + BUSY) == 0, "the busy model is idle")


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_entry_hides_and_stops_nothing_else(scene: Scene, kind: str) -> None:
    server = scene.server
    server.load("fake-10ms", PROBE)
    try:
        held = submit(server, body(8, 60), model_id=PROBE)
        wait_until(lambda: scene.redis.xlen(names.log_key(held)), "it runs")
        (worker,) = (name for name, job_id in claims(scene.redis) if job_id == held)
        scene.ids |= {"held": held, "worker": worker}
        bad = KINDS[kind]
        with scene.bad(bad):
            assert_all_answer(server, bad)
            assert_supervised(scene)
            if "held" not in kind:
                assert text_of(wait_ended(server, held)) == expected(8, 60)
            assert_all_answer(server, bad)
            assert_no_bug(scene)
    finally:
        server.unload(PROBE)


@pytest.mark.parametrize("data", [b'{"v": "from the future"}', NOT_UTF8])
def test_a_desired_model_that_cannot_be_read_is_unloaded_and_its_id_used_again(
    shared: tuple[Server, SyncRedis], data: bytes
) -> None:
    server, redis = shared
    redis.hset(names.DESIRED_MODELS, "odd", data)
    refused = server.post("/v1/internal/model/load", {"llm_model_name": "fake"}, "odd")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_id_in_use")
    server.unload("odd")
    server.load("fake", "odd")
    assert server.chat("Hello!", "odd", max_tokens=4).status_code == 200
    server.unload("odd")


def claims(redis: SyncRedis) -> list[tuple[str, str]]:
    found = map(names.parse_claim, redis.smembers(names.claims_key(PROBE)))
    return [claim for claim in found if claim is not None]


def client_of(server: Server) -> httpx.Client:
    """Without TLS's certificates, which take longer to read than the answers."""
    return httpx.Client(base_url=server.url, timeout=20, verify=False)


def assert_all_answer(server: Server, bad: Bad) -> None:
    """Every listing, a clean-up, RQ's own, and a chat, of which nothing stays open."""
    with client_of(server) as client:
        told = {path: client.get(path).status_code for path in (READINESS, *LISTINGS)}
        assert told.pop(READINESS) in bad.readiness
        assert told == dict.fromkeys(LISTINGS, 200)
        answer = client.post("/management/process/clean-up", json={"timeout": 3600})
        assert answer.status_code == 200, answer.text
        message = {"role": "user", "content": "Hello!"}
        chat = client.post("/v1/chat/completions", json={"messages": [message], "max_tokens": 4})
    assert chat.status_code == 200, chat.text
    assert chat.json()["usage"]["completion_tokens"] == 4
    if bad.can_rq_read:
        said = CliRunner().invoke(rq_command, ["info", "-u", server.redis_url])
        assert said.exit_code == 0, said.exception
        assert "mgs-gen-0" in said.output


def assert_no_bug(scene: Scene) -> None:
    """Who asks for the odd one itself is told what is wrong; the books are closed."""
    ids = scene.ids
    with client_of(scene.server) as client:
        for path in (
            f"/v1/jobs/{ids['waiting']}",
            f"/v1/jobs/{ids['ended']}",
            f"/v1/jobs/{ids['held']}",
            f"/v1/jobs/{ODD}",
            f"/v1/jobs/{ids['ended']}/events",
            f"/v1/responses/{ids['response']}",
            *OF_A_MODEL,
        ):
            answer = client.get(path, headers={"X-Model-Id": BUSY})
            assert '"internal_error"' not in answer.text, f"{path}: {answer.text}"
    held = (names.claims_key("0"), "rq:queue:mgs-gen-0:intermediate", "rq:wip:mgs-gen-0")
    wait_until(lambda: not scene.redis.exists(*held), f"of {held} nothing is left")


def assert_supervised(scene: Scene) -> None:
    """The supervisor goes on, and a killed worker comes back."""
    server, before = scene.server, last_heartbeat(scene.redis)
    pid = worker_pid(server, PROBE)
    kill(pid)
    # Sooner than by the end of RQ's leases, which would heal much.
    wait_until(lambda: worker_pid(server, PROBE) not in (0, pid), "another worker", 20)
    fresh = submit(server, body(8, 8), model_id=PROBE)
    assert text_of(wait_ended(server, fresh)) == expected(8, 8)
    wait_until(lambda: last_heartbeat(scene.redis) > before, "the supervisor sends heartbeats")


def last_heartbeat(redis: SyncRedis) -> float:
    """When a supervisor has sent a heartbeat last; an odd entry is of the far future."""
    heartbeats = [score for _, score in redis.zrange(names.NODE_INDEX, 0, -1, withscores=True)]
    return max(score for score in heartbeats if score < float(FUTURE))
