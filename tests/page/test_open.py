"""`mgs serve --open`."""

from __future__ import annotations

import socket
import webbrowser

import pytest

from api.cli.open_page import open_page_soon
from jobs.settings import Settings


def test_the_page_is_opened_once_the_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        open_page_soon(Settings(host="0.0.0.0", port=port, api_key="k")).join(20)
    assert opened == [f"http://127.0.0.1:{port}/ui/"]
