"""``mgs serve --open``: opens the page in a browser once the API answers."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from urllib.parse import urlsplit

from api.cli.banner import base_url
from jobs.settings import Settings

_WAIT_S = 60.0
_PAUSE_S = 0.2


def open_page_soon(settings: Settings) -> threading.Thread:
    """Wait for the API in a thread of its own, up to a minute, then open the page."""
    url = base_url(settings)
    thread = threading.Thread(target=_open, args=(url,), name="open-page", daemon=True)
    thread.start()
    return thread


def _open(url: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        if _is_answered(url):
            webbrowser.open(f"{url}/ui/")
            return
        time.sleep(_PAUSE_S)


def _is_answered(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=1.0).close()
    except OSError:
        return False
    return True
