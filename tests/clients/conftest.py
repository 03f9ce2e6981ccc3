"""The server that all clients talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.trying import MODELS
from tests.helpers.server import make_server


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Address of a server that has the demo model loaded in both formats, under their names."""
    server = make_server()
    try:
        server.start_all()
        for model_id, model in enumerate(MODELS):
            server.load(model, str(model_id))
        yield server.url
    finally:
        server.stop()
