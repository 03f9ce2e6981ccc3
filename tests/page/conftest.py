"""The page in a real browser, against real servers. Without a browser these tests fail."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.helpers.server import Server, make_server
from tests.integration.api_rig import Rig, running_api
from tests.page.browsing import Opener, Watch
from tests.page.scene import Scene, make_scene

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_EXPECT_MS = 15_000


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """For one file: while it lives, no other test of the process can run an event loop."""
    expect.set_options(timeout=_EXPECT_MS)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Debian's headless Chromium, or the Chrome of a Mac. None of them is an error, not a skip."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    options: dict[str, Any] = {"executable_path": found} if found else {"channel": "chrome"}
    if not found and sys.platform != "darwin":
        pytest.fail(f"no browser: install one of {', '.join(_NAMES)} (.ci/run does)")
    browser = playwright.chromium.launch(
        **options, args=["--host-resolver-rules=MAP *.lan 127.0.0.1"]
    )
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    """Opens a page of a server in a fresh context; at the end, none has done what it must not."""
    contexts: list[BrowserContext] = []
    watches: list[Watch] = []

    def open_(
        url: str,
        path: str = "/ui/",
        *,
        context: BrowserContext | None = None,
        allowed: tuple[str, ...] = (),
        **options: Any,
    ) -> Page:
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            context.set_default_timeout(_EXPECT_MS)
            contexts.append(context)
        page = context.new_page()
        watch = Watch(url, allowed=allowed)
        watches.append(watch)
        watch.on(page)
        page.goto(url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [problem for watch in watches for problem in watch.problems] == []


@pytest.fixture(scope="session")
def _page_server() -> Iterator[Server]:
    server = make_server()
    try:
        server.start_all()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(_page_server: Server) -> Iterator[Server]:
    """A complete server without a model, before and after."""
    yield _page_server
    _page_server.unload_all()


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """An API whose worker is the test: model "fake" is ready under id 0."""
    with running_api(tmp_path, redis_url) as running:
        running.supervise()
        running.load()
        yield running


@pytest.fixture
def scene(tmp_path: Path, redis_url: str) -> Iterator[Scene]:
    """A server in a fixed state, for looking at all pages."""
    with running_api(tmp_path, redis_url) as running:
        yield make_scene(running)
