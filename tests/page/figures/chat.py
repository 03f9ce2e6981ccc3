"""A chat of 200 messages: when its newest 20 are painted, what the rest and an answer cost."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from playwright.sync_api import Page

from tests.helpers.server import Server
from tests.page.browsing import until
from tests.page.long_chat import LONG_CHAT, store_long_chat

_NUM, _NUM_FIRST = 200, 20
_NUM_CHARS = 8000  # of the answer; a token of the fake engine is one
_ROUNDS = 7
_WATCH = """
() => {
  const seen = (num, name) => {
    if (document.querySelectorAll(".message").length < num || window[name] !== null) return;
    window[name] = 0;
    requestAnimationFrame(() => setTimeout(() => { window[name] = performance.now(); }));
  };
  window.begin = (place) => {
    window.screen_ = window.newest = window.all = null;
    window.long = [];
    window.begun = performance.now();
    if (place) location.hash = place;
  };
  begin(null);
  begun = 0;
  const look = () => { seen(1, "screen_"); seen(20, "newest"); seen(200, "all"); };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) long.push(Math.round(entry.duration));
  }).observe({ type: "longtask" });
}
"""
_ENDS = "all ? [screen_, newest, all].map((time) => time - begun).concat([long]) : null"


_FRAMES = """
() => {
  window.frames = [];
  let last = performance.now();
  const frame = (now) => {
    frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
"""


def load(server: Server) -> None:
    """A model that answers the chat, a character each millisecond."""
    server.load("fake-1ms", context_length=400_000)


@dataclass(frozen=True, slots=True)
class _Opened:
    """Times in ms until the first screen, the newest 20 and all were painted; long tasks."""

    screen_ms: float
    newest_ms: float
    all_ms: float
    long_ms: list[int]


def look(page: Page, url: str) -> None:
    """Opens the chat from another page, and as the first page of a tab."""
    page.goto(f"{url}#/settings")
    store_long_chat(page, _NUM)
    page.context.add_init_script(f"({_WATCH})()")
    page.reload()
    page.locator(".link-state.is-open").wait_for()
    _report("opened", [_open(page) for _ in range(_ROUNDS)])
    _report("as first page", [_load(page) for _ in range(_ROUNDS)])
    _stream(page)


def _stream(page: Page) -> None:
    other = '{"ignore_eos": true}'
    store_long_chat(page, _NUM, max_tokens=_NUM_CHARS, other=other)
    _load(page)
    page.evaluate("long.length = 0")
    page.get_by_label("Message", exact=True).fill("Write on.")
    page.get_by_role("button", name="Send message").click()
    answer = page.locator(".message.is-answer").last
    answer.filter(has_text="00").wait_for()
    page.evaluate(_FRAMES)
    until(page, "document.querySelector('[aria-busy=true]') === null")
    frames, long = page.evaluate("[frames, long]")
    num_chars = len(answer.locator(".prose").inner_text())
    print(
        f"an answer of {num_chars:,} characters after them, {sum(frames) / 1000:.0f} s: p95 of a "
        f"frame {statistics.quantiles(frames, n=20)[-1]:.0f} ms, tasks over 50 ms: {long}",
        flush=True,
    )


def _report(name: str, rounds: list[_Opened]) -> None:
    what = {
        "first screen": [one.screen_ms for one in rounds],
        f"newest {_NUM_FIRST}": [one.newest_ms for one in rounds],
        "all": [one.all_ms for one in rounds],
    }
    times = ", ".join(
        f"{part} {statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})"
        for part, found in what.items()
    )
    longest = [max(one.long_ms, default=0) for one in rounds]
    print(f"chat of {_NUM} messages, {name}, ms: {times}; longest tasks {longest}", flush=True)


def _open(page: Page) -> _Opened:
    page.evaluate("location.hash = '#/settings'")
    page.locator(".settings").wait_for()
    page.wait_for_timeout(300)
    page.evaluate("place => begin(place)", f"#/chat/{LONG_CHAT}")
    return _Opened(*until(page, _ENDS))


def _load(page: Page) -> _Opened:
    page.reload()
    return _Opened(*until(page, f"window.begin && ({_ENDS})"))
