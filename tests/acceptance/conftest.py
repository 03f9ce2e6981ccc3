"""Running servers for the acceptance ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.server import Server, make_server


@pytest.fixture(scope="session")
def _session_server() -> Iterator[Server]:
    server = make_server()
    try:
        server.start_all()
        yield server
    finally:
        survivors = server.stop()
    assert survivors == []


@pytest.fixture
def server(_session_server: Server) -> Iterator[Server]:
    """A running server without any model loaded, before and after."""
    yield _session_server
    _session_server.unload_all()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server for tests that kill parts of it."""
    server = make_server()
    try:
        server.start_all()
        yield server
    finally:
        server.stop()
