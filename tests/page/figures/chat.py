"""A chat of 200 messages: how soon its newest 20 are painted, and what the others cost."""

from __future__ import annotations

import statistics
import time
from typing import Any

from playwright.sync_api import Page

_CHAT, _NUM, _NUM_FIRST = "c0ffee000000000000000001", 200, 20
_ROUNDS = 7
_ANSWER = """A **cache** keeps the keys and values of what was read, so that the next token costs \
one row instead of all of them. It grows by one row a token, and `unified` shares its cells.

- It is made when the prompt is read, and kept as long as there is room for it.
- It is found again by the longest common start of two prompts.

| part | size |
|---|--:|
| keys | 2.1 MB |
| values | 2.1 MB |

```python
def attend(query, cache):
    scores = query @ cache.keys.T
    return softmax(scores) @ cache.values  # one row
```

"""
_STORE = "async ([module, chat]) => (await import(module)).put(chat)"
_WATCH = """
(first) => {
  window.painted = null;
  window.rest = null;
  window.long = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) long.push(Math.round(entry.duration));
  }).observe({ type: "longtask", buffered: true });
  const look = () => {
    const num = document.querySelectorAll(".message").length;
    if (num >= first && painted === null) {
      painted = 0;
      requestAnimationFrame(() => setTimeout(() => { painted = performance.now(); }));
    }
    if (num >= 200 && rest === null) rest = performance.now();
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
}
"""
_GO = """
(place) => {
  window.painted = window.rest = null;
  window.long.length = 0;
  window.begun = performance.now();
  location.hash = place;
}
"""


def look(page: Page, url: str) -> None:
    """Opens the chat from another page, and as the first page of a tab."""
    page.goto(f"{url}#/settings")
    build = page.evaluate("document.scripts[0].src.split('/')[5]")
    page.evaluate(_STORE, [f"/ui/-/{build}/js/chats/db.js", _chat()])
    page.reload()
    page.locator(".link-state.is-open").wait_for()
    page.evaluate(_WATCH, _NUM_FIRST)
    _report("opened", [_open(page) for _ in range(_ROUNDS)])
    page.context.add_init_script(f"({_WATCH})({_NUM_FIRST})")
    page.goto(f"{url}#/chat/{_CHAT}")
    _report("as first page", [_load(page) for _ in range(_ROUNDS)])


def _report(name: str, rounds: list[tuple[float, float, list[int]]]) -> None:
    firsts, rests, longs = zip(*rounds, strict=True)
    print(
        f"chat of {_NUM} messages, {name}: newest {_NUM_FIRST} painted after "
        f"{statistics.median(firsts):.0f} ms (median; {min(firsts):.0f} to {max(firsts):.0f}), "
        f"all after {statistics.median(rests):.0f} ms, long tasks {[*longs]}",
        flush=True,
    )


def _open(page: Page) -> tuple[float, float, list[int]]:
    page.evaluate("location.hash = '#/settings'")
    page.locator(".settings").wait_for()
    page.wait_for_timeout(200)
    page.evaluate(_GO, f"#/chat/{_CHAT}")
    begun = page.evaluate("begun")
    return _ends(page, begun)


def _load(page: Page) -> tuple[float, float, list[int]]:
    page.reload()
    return _ends(page, 0.0)


def _ends(page: Page, begun: float) -> tuple[float, float, list[int]]:
    deadline = time.monotonic() + 30
    while not page.evaluate("painted && (rest || !window.isGrowing)"):
        assert time.monotonic() < deadline, "the chat was not shown"
    page.wait_for_timeout(1500)
    painted, rest, long = page.evaluate("[painted, rest, long]")
    return painted - begun, (rest or float("nan")) - begun, long


def _chat() -> dict[str, Any]:
    now = time.time() * 1000
    messages = [_message(index, now) for index in range(_NUM)]
    conversation = {
        "id": _CHAT, "title": "A long chat", "created": now, "updated": now,
        "leaf": f"m{_NUM - 1}", "modelId": "0", "modelName": "demo", "system": "", "params": {},
    }  # fmt: skip
    return {"conversations": [conversation], "messages": messages}


def _message(index: int, now: float) -> dict[str, Any]:
    """About 1 kB each: questions and answers by turns."""
    common = {
        "id": f"m{index}", "conversation": _CHAT, "created": now + index, "status": "done",
        "parent": f"m{index - 1}" if index else None,
    }  # fmt: skip
    if index % 2 == 0:
        return {**common, "role": "user", "content": f"Question {index}: " + "why is it so? " * 60}
    return {
        **common, "role": "assistant", "model": "demo", "finishReason": "stop",
        "content": f"Answer {index}\n\n" + _ANSWER * 2,
        "usage": {"prompt_tokens": 2011, "completion_tokens": 143, "cached_tokens": 1792},
        "timings": {"ttft_ms": 210, "decode_tokens_per_s": 41.2},
    }  # fmt: skip
