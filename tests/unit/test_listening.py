"""Where the API listens: at a free address, with connections whose peers are watched."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from api.__main__ import is_answered, listen
from api.web import peers
from api.web.protocol import PatientProtocol
from jobs.platform.file_limit import kept_file_limit


def test_an_address_with_a_server_is_in_use() -> None:
    """BSD would let us bind beside it, and clients would reach either of the two."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        assert is_answered(socket.AF_INET, ("127.0.0.1", port))
        with pytest.raises(OSError, match="in use") as caught:
            listen("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_without_a_server_is_free() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
        assert not is_answered(socket.AF_INET, address)
    with listen(*address) as listener:
        assert listener.getsockname() == address


def test_a_name_with_addresses_of_both_kinds_is_one_of_ipv4(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = socket.SOCK_STREAM
    both = [
        (socket.AF_INET6, kind, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, kind, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


class Noted:
    """A socket that notes its options."""

    def __init__(self) -> None:
        self.options: dict[tuple[int, int], int] = {}

    def setsockopt(self, level: int, name: int, value: int, /) -> None:
        self.options[level, name] = value


def test_on_a_mac_unanswered_data_ends_a_connection_after_45_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """<netinet/tcp.h>: TCP_KEEPALIVE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_RXT_CONNDROPTIME."""
    monkeypatch.setattr(sys, "platform", "darwin")
    noted = Noted()
    peers.watch_peer(noted)
    tcp = {n: v for (level, n), v in noted.options.items() if level == socket.IPPROTO_TCP}
    assert tcp == {0x10: 30, 0x101: 10, 0x102: 3, 0x80: 45}
    assert noted.options[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody asks anything")


@pytest.mark.skipif(sys.platform != "linux", reason="reads an option by Linux' number")
@pytest.mark.parametrize("is_inherited", [False, True])
async def test_connections_are_watched_where_they_do_not_inherit_it(
    monkeypatch: pytest.MonkeyPatch, is_inherited: bool
) -> None:
    monkeypatch.setattr(peers, "IS_INHERITED", is_inherited)
    config = uvicorn.Config(_app, log_config=None)
    config.load()
    made: list[PatientProtocol] = []

    def new() -> PatientProtocol:
        made.append(PatientProtocol(config, ServerState(), {}))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(new, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not made or getattr(made[0], "transport", None) is None:
            await asyncio.sleep(0.001)
        accepted = made[0].transport.get_extra_info("socket")
        is_watched = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        writer.close()
        await writer.wait_closed()
    assert is_watched != is_inherited


def _limits_after(before: tuple[int, int]) -> str:
    # Far below this process's own limit, which nobody can raise again.
    code = (
        "import resource, sys\n"
        "from jobs.platform.file_limit import kept_file_limit\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {before})\n"
        "with kept_file_limit():\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((64, 1000), "200 1000"),
        ((64, 100), "100 100"),
        ((300, 1000), "300 1000"),
    ],
    ids=["raised", "as far as it may be", "never lowered"],
)
def test_a_library_that_sets_the_limit_of_files_can_only_raise_it(
    before: tuple[int, int], after: str
) -> None:
    assert _limits_after(before) == after


def test_the_limit_can_be_set_again_afterwards() -> None:
    original = resource.setrlimit
    with pytest.raises(ImportError), kept_file_limit():
        raise ImportError
    assert resource.setrlimit is original
