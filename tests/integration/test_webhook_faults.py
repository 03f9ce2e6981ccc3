"""Webhooks while senders, Redis and receivers fail."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.webhooks import transport
from api.webhooks.transport import UnreachableError, post
from jobs.storage import object_names
from jobs.storage.connection import SyncRedis, connect, connect_async
from jobs.storage.lua.webhook_scripts import QUEUE
from jobs.webhooks.records import Endpoint
from jobs.webhooks.store import NewEndpoint, WebhookStore
from tests.helpers.private_redis import private_redis
from tests.helpers.receiver import Received, Receiver, receiving
from tests.helpers.sending import sending
from tests.helpers.tls_proxy import certificate
from tests.helpers.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


async def made_endpoint(redis_url: str, url: str, **fields: Any) -> Endpoint:
    client = connect_async(redis_url)
    try:
        wanted = NewEndpoint("a", url, ["batch.completed"], fields.get("is_private_allowed", True))
        return await WebhookStore(client).create("", wanted)
    finally:
        await client.aclose()


def queue(redis: SyncRedis, numbers: range) -> None:
    script = redis.register_script(QUEUE)
    for number in numbers:
        script(args=["", "batch.completed", f"batch_{number}"])


def make_due(redis: SyncRedis, endpoint: Endpoint) -> None:
    """The leases and pauses of all pending deliveries are over."""
    key = object_names.hook_due_key(endpoint.endpoint_id)
    for event in redis.zrange(key, 0, -1):
        redis.zadd(key, {event: 1})
    redis.zadd(object_names.HOOKS_DUE, {endpoint.endpoint_id: 1})
    redis.lpush(object_names.HOOKS_WAKE, "1")


@contextmanager
def sender_process(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.helpers.sending", redis_url]
    process = subprocess.Popen(command, cwd=_ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


async def test_no_delivery_is_lost_with_a_sender_that_is_killed(
    redis: SyncRedis, redis_url: str, receiver: Receiver
) -> None:
    gate = threading.Semaphore(10)
    receiver.answer = lambda received: (204, {}) if gate.acquire(timeout=20) else (500, {})
    endpoint = await made_endpoint(redis_url, receiver.url)
    queue(redis, range(60))
    due = object_names.hook_due_key(endpoint.endpoint_id)
    with sender_process(redis_url) as sender:
        # Ten are delivered; four more have arrived and get no answer.
        wait_until(lambda: len(receiver.requests) == 14, "deliveries under way")
        wait_until(lambda: redis.zcard(due) == 50, "ten settled deliveries")
        sender.kill()
    gate.release(1000)
    make_due(redis, endpoint)
    with sending(redis_url):
        wait_until(lambda: redis.zcard(due) == 0, "no pending delivery")
    times = Counter(receiver.ids())
    assert len(times) == 60
    assert sum(times.values()) == 64
    assert set(times.values()) == {1, 2}


async def test_what_a_lost_receiver_missed_is_delivered_once_it_is_back(
    redis: SyncRedis, redis_url: str
) -> None:
    with receiving() as lost:
        endpoint = await made_endpoint(redis_url, lost.url)
    queue(redis, range(20))
    due = object_names.hook_due_key(endpoint.endpoint_id)
    pattern = object_names.hook_event_key(endpoint.endpoint_id, "*")
    with sender_process(redis_url):

        def tried() -> int:
            return sum(redis.hget(key, "attempts") == b"1" for key in redis.scan_iter(pattern))

        wait_until(lambda: tried() == 20, "a failed attempt of each")
        assert redis.zcard(due) == 20
        with receiving(lost.port) as back:
            make_due(redis, endpoint)
            wait_until(lambda: redis.zcard(due) == 0, "no pending delivery")
    assert sorted(Counter(back.ids()).values()) == [1] * 20
    assert lost.requests == []
    counted = {b"retried": b"20", b"delivered": b"20"}
    assert redis.hgetall(object_names.HOOKS_TOTALS) == counted


async def test_senders_go_on_after_redis_was_killed(receiver: Receiver) -> None:
    with private_redis(is_kept=True) as server:
        redis = connect(server.url)
        endpoint = await made_endpoint(server.url, receiver.url)
        gate = threading.Event()

        def answer(received: Received) -> tuple[int, dict[str, str]]:
            gate.wait(20)
            return 204, {}

        receiver.answer = answer
        with sending(server.url):
            queue(redis, range(20))
            receiver.wait_for(4)
            server.kill()
            gate.set()
            server.start()
            redis.lpush(object_names.HOOKS_WAKE, "1")
            due = object_names.hook_due_key(endpoint.endpoint_id)
            wait_until(lambda: redis.zcard(due) == 0, "no pending delivery")
        assert len(set(receiver.ids())) == 20
        redis.close()


async def test_a_receiver_that_hangs_is_given_up(redis: SyncRedis, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = await made_endpoint(redis_url, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with sending(redis_url, timeout_s=0.2):
            queue(redis, range(1))
            key = object_names.hook_event_key(endpoint.endpoint_id, "evt_batch_0_batch_completed")
            wait_until(lambda: redis.hget(key, "attempts") == b"1", "an attempt")
        assert b"no answer within 0.2 s" in redis.hget(key, "tries")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 204", "closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 20x No\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 204 No\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "too large"),
    ],
)
async def test_an_answer_that_is_none_has_a_reason(answer: bytes, reason: str) -> None:
    with raw_receiver(answer) as port, pytest.raises(UnreachableError, match=reason):
        await post(f"http://127.0.0.1:{port}/", {}, b"{}", is_private_allowed=True)


async def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(tmp_path), tmp_path / "key.pem")
        receiver.serve_tls(context)
        url = f"https://127.0.0.1:{receiver.port}/hook"
        with pytest.raises(UnreachableError, match="TLS"):
            await post(url, {}, b"{}", is_private_allowed=True)
        trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        trusting.hostname_checks_common_name = False  # it is localhost's
        monkeypatch.setattr(transport, "_tls_context", lambda: trusting)
        assert (await post(url, {}, b"{}", is_private_allowed=True)).status == 204
        wrong = f"https://localhost:{receiver.port}/hook"
        with pytest.raises(UnreachableError, match="TLS"):
            await post(wrong, {}, b"{}", is_private_allowed=True)
        with pytest.raises(UnreachableError):
            await post(receiver.url, {}, b"{}", is_private_allowed=True)
        assert len(receiver.requests) == 1


async def test_interim_answers_are_skipped_and_a_body_is_not_waited_for() -> None:
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nretry-after:  7 \r\nContent-Length: 1000000\r\n\r\nabc"
    )
    with raw_receiver(answer) as port:
        found = await post(f"http://127.0.0.1:{port}/", {}, b"{}", is_private_allowed=True)
    assert (found.status, found.retry_after_s, found.is_success) == (200, 7.0, True)


@contextmanager
def raw_receiver(answer: bytes) -> Iterator[int]:
    """Answers one connection with these bytes and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                seen = b""
                while b"\r\n\r\n{}" not in seen:
                    seen += client.recv(65536)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::1]"])
async def test_no_attempt_of_a_client_reaches_this_machine(receiver: Receiver, host: str) -> None:
    url = f"http://{host}:{receiver.port}/"
    with pytest.raises(UnreachableError, match=r"private|reserved"):
        await post(url, {}, b"{}", is_private_allowed=False)
    assert receiver.requests == []


async def test_a_name_is_resolved_once_and_the_connection_goes_there(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers otherwise the next time (rebinding) is not asked again."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return real(address, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://rebinding.example:{receiver.port}/hook"
    answer = await post(url, {}, b"{}", is_private_allowed=True)
    assert answer.status == 204
    assert asked == ["rebinding.example"]
    assert receiver.requests[0].headers["host"] == f"rebinding.example:{receiver.port}"
    with pytest.raises(UnreachableError, match="private"):
        await post(url, {}, b"{}", is_private_allowed=False)


async def test_a_name_whose_addresses_are_all_private_is_not_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolved(host: str) -> list[str]:
        return ["127.0.0.1", "::ffff:127.0.0.1"]

    monkeypatch.setattr(transport, "_resolved", resolved)
    with pytest.raises(UnreachableError, match="private"):
        await post("http://a.example/", {}, b"{}", is_private_allowed=False)
    assert receiver.requests == []


async def test_an_unknown_name_has_a_reason() -> None:
    with pytest.raises(UnreachableError, match="resolve"):
        await post("http://nobody.invalid/", {}, b"{}", is_private_allowed=True)


async def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answer = await post(receiver.url, {}, b"{}", is_private_allowed=True)
    assert answer.status == 204


def test_an_idle_sender_asks_redis_seldom(redis: SyncRedis, redis_url: str) -> None:
    with sending(redis_url):
        wait_until(lambda: any(c["cmd"] == "blpop" for c in redis.client_list()), "a wait")
        before = redis.info("commandstats")
        time.sleep(2)
        after = redis.info("commandstats")
    calls = [after.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blpop")]
    earlier = [before.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "blpop")]
    assert sum(calls) - sum(earlier) <= 2
