"""What the feed costs the server, and what a tab that shows it does."""

from __future__ import annotations

import threading
import time

import httpx
import psutil
from playwright.sync_api import Page
from redis import Redis

from tests.helpers.server import Server

_NUM_MODELS, _NUM_JOBS = 4, 254
_SECONDS = 20.0
_BODY = {"messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 8000}
_WATCH = """
() => {
  window.long = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) long.push(Math.round(entry.duration));
  }).observe({ type: "longtask" });
}
"""
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _fill(server: Server) -> None:
    for model_id in map(str, range(_NUM_MODELS)):
        server.load("fake-20ms", model_id, slots=4)
        headers = {"Prefer": "respond-async", "X-Model-Id": model_id}
        for _ in range(_NUM_JOBS):
            url = f"{server.url}/v1/chat/completions"
            httpx.post(url, json={**_BODY, "ignore_eos": True}, headers=headers)


def _listen(server: Server, stop: threading.Event) -> None:
    with httpx.stream("GET", f"{server.url}/v1/live", timeout=60) as answer:
        for _ in answer.iter_lines():
            if stop.is_set():
                return


def _measure(name: str, web: psutil.Process, redis: psutil.Process) -> None:
    before, started = (_cpu_s(web), _cpu_s(redis)), time.monotonic()
    time.sleep(_SECONDS)
    passed = time.monotonic() - started
    shares = [(_cpu_s(p) - b) / passed * 100 for p, b in zip((web, redis), before, strict=True)]
    print(f"{name}: API {shares[0]:.2f} % of a core, Redis {shares[1]:.2f} %", flush=True)


def measure(server: Server) -> None:
    """Prints the shares of a core of API and Redis with 0, 1 and 8 listeners."""
    _first_request(server)
    _fill(server)
    web = psutil.Process(server.processes["web"].pid)
    with Redis.from_url(server.redis_url, protocol=2) as client:
        redis = psutil.Process(client.info("server")["process_id"])
    stop = threading.Event()
    for num in (0, 1, 8):
        while threading.active_count() <= num:
            threading.Thread(target=_listen, args=(server, stop), daemon=True).start()
        time.sleep(2)
        _measure(f"{num} listeners", web, redis)
    stop.set()


def _first_request(server: Server) -> None:
    process = psutil.Process(server.processes["web"].pid)
    before, started = process.memory_info().rss, time.monotonic()
    httpx.get(f"{server.url}/ui/")
    ms, more = (time.monotonic() - started) * 1000, process.memory_info().rss - before
    print(f"first request of the page: {ms:.0f} ms, {more / 1e6:.1f} MB more memory", flush=True)


def look(page: Page, url: str) -> None:
    for _ in range(3):
        page.goto(f"{url}#/chat")
        page.reload()
        page.locator(".link-state.is-open").wait_for()
        paint, usable = page.evaluate(f"[{_PAINT}, performance.now()]")
        print(f"first paint {paint:.0f} ms, connected {usable:.0f} ms", flush=True)
    page.goto(f"{url}#/queue")
    page.locator("tr.is-running").first.wait_for()
    for _ in range(_NUM_MODELS):
        page.get_by_role("button", name="80 more").first.click()
    page.evaluate(_WATCH)
    page.wait_for_timeout(15_000)
    rows = page.locator("table.jobs tbody tr").count()
    print(f"{rows} rows of queues, long tasks in 15 s: {page.evaluate('long')}", flush=True)
