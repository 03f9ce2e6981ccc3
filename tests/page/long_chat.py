"""A chat of many messages in the storage of a page."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page

LONG_CHAT = "c0ffee000000000000000001"
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


def store_long_chat(page: Page, num: int, **params: Any) -> None:
    """Stores a chat of ``num`` messages of about 1 kB, half of them answers, as ``LONG_CHAT``.

    ``params``: of its requests, as the page keeps them.
    """
    folder = page.evaluate("document.scripts[0].src.split('/js/')[0]")
    page.evaluate(_STORE, [f"{folder}/js/chats/db.js", _chat(num, params)])


def _chat(num: int, params: dict[str, Any]) -> dict[str, Any]:
    now = time.time() * 1000
    messages = [_message(index, now) for index in range(num)]
    conversation = {
        "id": LONG_CHAT, "title": "A long chat", "created": now, "updated": now,
        "leaf": f"m{num - 1}", "modelId": "0", "modelName": "demo", "system": "", "params": params,
    }  # fmt: skip
    return {"conversations": [conversation], "messages": messages}


def _message(index: int, now: float) -> dict[str, Any]:
    """About 1 kB each: questions and answers by turns."""
    common = {
        "id": f"m{index}", "conversation": LONG_CHAT, "created": now + index, "status": "done",
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
