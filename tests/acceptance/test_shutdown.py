"""The end of a server: said to clients, and leaving nothing behind."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.server import Server
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def test_a_stopping_api_tells_its_clients_why(own_server: Server) -> None:
    own_server.load("fake-20ms")
    with ThreadPoolExecutor(2) as pool:
        endless = {"max_tokens": 3000, "ignore_eos": True}
        whole = pool.submit(own_server.chat, "count", **endless)
        streamed = pool.submit(own_server.chat, "count", **endless, stream=True)
        queues = lambda: own_server.processes_by_id()["0"]["current_queue"]["queues"]  # noqa: E731
        wait_until(lambda: len(queues()) == 2, "both run")
        own_server.processes["web"].send_signal(signal.SIGTERM)
        assert own_server.processes["web"].wait(timeout=15) == 0
    assert whole.result().status_code == 503
    assert whole.result().json()["error"]["code"] == "shutting_down"
    assert '"code":"shutting_down"' in streamed.result().text.splitlines()[-2]


def test_nothing_is_left_when_everything_is_told_to_stop(own_server: Server) -> None:
    own_server.load("demo.gguf", "0")
    own_server.load("fake-20ms", "1")
    own_server.chat("count", "1", background=True, max_tokens=3000, ignore_eos=True)
    assert own_server.stop() == []
