"""10 000 waiting jobs: the Queue page while they move, and how soon pages of them come."""

from __future__ import annotations

import statistics
from typing import Any

from playwright.sync_api import CDPSession, Page

from jobs.storage.store import JobStore
from tests.helpers.driver import Driver
from tests.helpers.server import Server
from tests.page.browsing import until

NUM_WAITING = 10_000
_LIMITS = {"max_queued_per_model": 2 * NUM_WAITING, "max_jobs": 2 * NUM_WAITING}
_SECONDS = 15
_WATCH = """
() => {
  window.long = [];
  window.frames = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) long.push(Math.round(entry.duration));
  }).observe({ type: "longtask" });
  let last = performance.now();
  const frame = (now) => {
    frames.push(now - last);
    last = now;
    const box = document.getElementById("main");
    if (window.isScrolling) box.scrollTop = (box.scrollTop + 20) % (box.scrollHeight - 800);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
"""


def fill(server: Server, num: int = NUM_WAITING) -> None:
    """A model that takes some jobs a second, and so many that wait for it."""
    server.load("fake-20ms", "0", slots=4)
    driver = Driver(server.redis_url, server.folder)
    store = JobStore(driver.redis, driver.settings.model_copy(update=_LIMITS))
    driver.store = store
    for index in range(num):
        driver.generate("x " * (20 + index % 400), 30 + index % 100)
    driver.close()


def look(page: Page, url: str) -> None:
    page.goto(f"{url}#/queue")
    page.locator("tr.is-running").first.wait_for()
    page.get_by_role("button", name="80 more").click()
    page.evaluate(_WATCH)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    for name in ("still", "scrolled"):
        page.evaluate(
            f"long.length = frames.length = 0; isScrolling = {str(name != 'still').lower()}"
        )
        before = _cpu_s(session)
        page.wait_for_timeout(_SECONDS * 1000)
        share = (_cpu_s(session) - before) / _SECONDS
        print(
            f"queue of {NUM_WAITING:,} jobs, {name}: {_frames(page)}, "
            f"{share:.0%} of a core for its thread",
            flush=True,
        )
    page.evaluate("isScrolling = false; location.hash = '#/queue?show=all&status=queued'")
    page.locator("table.rows:not(.jobs) tbody tr").first.wait_for()
    page.evaluate("long.length = frames.length = 0")
    times = [_older_ms(page, num) for num in range(2, 12)]
    print(
        f"pages of 50 of them: {statistics.median(times):.0f} ms (median; up to {max(times):.0f}), "
        f"{page.locator('table.rows tbody tr').count()} rows, {_frames(page)}",
        flush=True,
    )


def _cpu_s(session: CDPSession) -> float:
    """Processor time of the page's thread, whatever else the machine does."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def _frames(page: Page) -> str:
    frames, long = page.evaluate("[frames, long]")
    p95 = statistics.quantiles(frames, n=20)[-1]
    rows = page.locator("table.jobs tbody tr").count()
    return f"{rows} rows, p95 of a frame {p95:.0f} ms, tasks over 50 ms: {long}"


def _older_ms(page: Page, num: int) -> float:
    """From the click until the page with that number is painted."""
    shown: dict[str, Any] = page.evaluate(_CLICK, f"Page {num}")
    until(page, "window.shownAt")
    return float(page.evaluate("shownAt")) - float(shown["begun"])


_CLICK = """
(text) => {
  window.shownAt = null;
  const all = [...document.querySelectorAll("button")];
  const button = all.find((one) => one.textContent === "Older");
  const watcher = new MutationObserver(() => {
    if (!document.body.textContent.includes(text)) return;
    watcher.disconnect();
    requestAnimationFrame(() => setTimeout(() => { shownAt = performance.now(); }));
  });
  watcher.observe(document.body, { childList: true, subtree: true, characterData: true });
  const begun = performance.now();
  button.click();
  return { begun };
}
"""
