"""Pages of the tests' browser: what they must not do, and waiting for what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page

from tests.helpers.waiting import wait_until


@dataclass
class Watch:
    """What a page must not do: errors, policy reports, requests to others. ``allowed``: texts."""

    origin: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()

    def on(self, page: Page) -> None:
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("dialog", lambda dialog: self._note(f"dialog {dialog.message}"))
        page.on("request", lambda request: self._note_request(request.url))

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"{message.text} {message.location['url']}")

    def _note(self, text: str) -> None:
        # What the browser says of answers that a test asks for, such as a 401.
        if not any(part in text for part in self.allowed):
            self.problems.append(text)

    def _note_request(self, url: str) -> None:
        self.requests.append(url)
        address = urlsplit(url)
        if (
            address.scheme not in ("data", "blob")
            and f"{address.scheme}://{address.netloc}" != self.origin
        ):
            self.problems.append(f"request to {url}")


Opener = Callable[..., Page]


def until(page: Page, code: str, arg: Any = None) -> Any:
    """Wait for a true value of an expression or function; the page's policy forbids Playwright's
    own way, which evaluates text inside the page."""
    return wait_until(lambda: page.evaluate(code, arg), code)
