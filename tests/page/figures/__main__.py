"""``python -m tests.page.figures [feed] [chat] [queue] [soak]``; without a name, no soak."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.helpers.server import Server, make_server
from tests.page.figures import chat, feed, queue, soak

_LIMITS = {"MGS_MAX_QUEUED_PER_MODEL": "20000"}


def _in_browser(server: Server, look: Callable[[Page, str], Any]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium-headless-shell")
        look(browser.new_page(viewport={"width": 1280, "height": 800}), f"{server.url}/ui/")
        browser.close()


def _feed(server: Server) -> None:
    feed.measure(server)
    _in_browser(server, feed.look)


def _chat(server: Server) -> None:
    chat.load(server)
    _in_browser(server, chat.look)


def _queue(server: Server) -> None:
    queue.fill(server)
    _in_browser(server, queue.look)


def _soak(server: Server) -> None:
    queue.fill(server, 5000)
    _in_browser(server, soak.look)


_PARTS = {"feed": _feed, "chat": _chat, "queue": _queue, "soak": _soak}


def main() -> None:
    for name in sys.argv[1:] or ["feed", "chat", "queue"]:
        load = os.getloadavg()[0]
        print(f"{name}: the machine's load is {load:.1f}", flush=True)
        server = make_server(**_LIMITS)
        try:
            server.start_all()
            _PARTS[name](server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
