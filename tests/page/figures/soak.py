"""Ten minutes of a tab that goes from page to page beside a busy server: what it keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass

from playwright.sync_api import CDPSession, Page

from tests.page.long_chat import LONG_CHAT, store_long_chat

_SECONDS = 600
_EVERY_S = 60
_PLACES = (f"chat/{LONG_CHAT}", "queue", "metrics", "models", "usage", "chat", "settings")
_STAY_MS = 1500


@dataclass(frozen=True, slots=True)
class _Kept:
    """After a collection of garbage, on the page Settings."""

    heap_bytes: int
    nodes: int
    listeners: int


def look(page: Page, url: str) -> None:
    """Prints what the tab holds each minute, and its growth from the first reading on."""
    page.goto(f"{url}#/settings")
    store_long_chat(page, 200)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    _walk(page)
    first = _kept(page, session)
    print(f"soak: at first {first}", flush=True)
    begun = time.monotonic()
    last = first
    while time.monotonic() - begun < _SECONDS:
        until_s = time.monotonic() + _EVERY_S
        while time.monotonic() < until_s:
            _walk(page)
        last = _kept(page, session)
        print(f"soak: after {time.monotonic() - begun:.0f} s {last}", flush=True)
    print(
        f"soak: {(last.heap_bytes - first.heap_bytes) / 1e6:+.1f} MB of heap, "
        f"{last.nodes - first.nodes:+d} nodes, {last.listeners - first.listeners:+d} listeners",
        flush=True,
    )


def _walk(page: Page) -> None:
    for place in _PLACES:
        page.evaluate("place => { location.hash = '#/' + place }", place)
        page.wait_for_timeout(_STAY_MS)


def _kept(page: Page, session: CDPSession) -> _Kept:
    page.locator(".settings").wait_for()
    for _ in range(2):  # what the first one finalizes, the second one frees
        session.send("HeapProfiler.collectGarbage")
    found = {
        one["name"]: int(one["value"]) for one in session.send("Performance.getMetrics")["metrics"]
    }
    return _Kept(found["JSHeapUsedSize"], found["Nodes"], found["JSEventListeners"])
