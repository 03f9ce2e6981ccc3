"""A server in a fixed state, for looking at all pages: models, jobs, a chat, always the same."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page, expect

from jobs.contract.records import DesiredModel, Phase, RunningJob, WorkerState
from jobs.storage import names
from tests.integration.api_rig import Rig
from tests.page.browsing import Opener, until

PAGES = (
    "chat", "compare", "models", "queue", "batches", "job", "metrics", "usage", "connect",
    "settings",
)  # fmt: skip
SIZES = ((1280, 800), (390, 844))
_CHAT_ID = "c0ffee000000000000000000"
_TEXT = """A **KV cache** keeps the keys and values of the tokens that were read, so that the next \
token costs one row instead of all of them.

- It grows by one row a token.
- `unified` shares its cells among all slots.

| part | size |
|---|--:|
| keys | 2.1 MB |
| values | 2.1 MB |

```python
def attend(query, cache):
    scores = query @ cache.keys.T
    return softmax(scores) @ cache.values  # one row
```

What would you like to look at next?"""


@dataclass
class Scene:
    """The rig, and the jobs in it: those that run, those that wait, one that has ended."""

    rig: Rig
    models: dict[str, DesiredModel] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    ended: str = ""

    def open(self, open_page: Opener, size: tuple[int, int], theme: str, **options: Any) -> Page:
        """A page with a chat in its storage; animations are off."""
        width, height = size
        is_phone = width < 720
        page = open_page(
            self.rig.url,
            "/ui/#/settings",
            viewport={"width": width, "height": height},
            color_scheme=theme,
            has_touch=is_phone,
            is_mobile=is_phone,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
            **options,
        )
        page.evaluate(_STORE, [f"/ui/-/{_build(page)}/js/chats/db.js", _chat()])
        return page


def _build(page: Page) -> str:
    return str(page.evaluate("document.scripts[0].src.split('/')[5]"))


_STORE = "async ([module, chat]) => (await import(module)).put(chat)"


def _chat() -> dict[str, Any]:
    now = time.time() * 1000
    common = {"conversation": _CHAT_ID, "created": now, "status": "done"}
    question = {
        **common,
        "id": "m1",
        "parent": None,
        "role": "user",
        "content": "Explain the KV cache, shortly.",
    }
    answer = {
        **common,
        "id": "m2",
        "parent": "m1",
        "role": "assistant",
        "model": "qwen3-8b",
        "content": _TEXT,
        "reasoning": "They want it short.",
        "thoughtMs": 4200,
        "finishReason": "stop",
        "job": "chatcmpl-0000",
        "usage": {"prompt_tokens": 2011, "completion_tokens": 143, "cached_tokens": 1792},
        "timings": {"ttft_ms": 210, "decode_tokens_per_s": 41.2},
    }
    titles = ["Explain the KV cache, shortly.", "A regex for dates", "Names for a boat"]
    conversations: list[dict[str, Any]] = [
        {
            "id": _CHAT_ID if index == 0 else f"other-{index}",
            "title": title,
            "created": now - index,
            "updated": now - index,
            "leaf": "m2" if index == 0 else None,
            "modelId": "0",
            "modelName": "qwen3-8b",
            "system": "",
            "params": {},
        }
        for index, title in enumerate(titles)
    ]
    return {"conversations": conversations, "messages": [question, answer]}


def show(page: Page, scene: Scene, name: str) -> None:
    """Goes to the page and waits until its content is there."""
    place = {"chat": f"chat/{_CHAT_ID}", "job": f"job/{scene.ended}"}.get(name, name)
    page.evaluate("place => { location.hash = '#/' + place }", place)
    expect(page.locator("h1")).to_have_text(name.capitalize())
    page.locator(_MARKS[name]).filter(visible=True).first.wait_for()
    if name == "chat":
        until(page, "document.querySelector('.t-keyword') !== null")
    page.mouse.move(0, 0)


_MARKS = {
    "chat": ".message.is-answer table",
    "compare": ".side select",
    "models": "table.rows tbody tr",
    "queue": "tr.is-running",
    "batches": ".empty",
    "job": ".paper",
    "metrics": ".chart canvas",
    "usage": ".usage tbody tr",
    "connect": ".code .t-string",
    "settings": ".choice",
}


_PROGRESS: tuple[tuple[Phase, int, int], ...] = (
    ("decode", 900, 412),
    ("decode", 300, 77),
    ("prefill", 5060, 0),
)


def make_scene(rig: Rig) -> Scene:
    """Two ready models and one that loads; three jobs run, five wait, one has ended."""
    scene = Scene(rig)
    rig.supervise()
    for name, size in _DISK.items():
        _put_model(rig, name, size)
    for model_id, name in (("0", "qwen3-8b"), ("1", "gemma-3-4b"), ("2", "llama-3.2-3b")):
        scene.models[model_id] = rig.load(model_id, name)
    for index in range(9):
        text = "Summarise this page. " * (1 + 40 * index)
        body = {"messages": [{"role": "user", "content": text}]}
        rig.post("/v1/chat/completions", body, Prefer="respond-async")
    taken = _leave(rig)
    taken.answer("A cache keeps what was read. ", "So the next token is cheap.")
    scene.ended = taken.job_id
    lines = []
    for phase, prefilled, generated in _PROGRESS:
        taken = _leave(rig)
        taken.started(8100)
        scene.running.append(taken.job_id)
        prompt = max(prefilled, 8100 if phase == "prefill" else prefilled)
        lines.append(RunningJob(taken.job_id, phase, prompt, prefilled, generated, 1))
    _beat(scene, lines)
    return scene


_DISK = {
    "gemma-3-4b": 2_400_000_000,
    "llama-3.2-3b": 2_000_000_000,
    "mistral-small-24b": 14_300_000_000,
    "qwen3-8b": 4_900_000_000,
}


def _put_model(rig: Rig, name: str, size: int) -> None:
    """A folder that is listed as a model. Its weights are a file without blocks."""
    folder = rig.settings.models_dir / name
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 32768}')
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(size)


def _leave(rig: Rig) -> Any:
    taken = rig.take()
    rig.redis.lrem(rig.store.queue(names.generation_queue("0")).key, 0, taken.job_id)
    return taken


def _beat(scene: Scene, lines: list[RunningJob]) -> None:
    facts: dict[str, Any] = {
        "backend": "llama-cpp",
        "node": "studio",
        "slots": 8,
        "context_length": 32768,
    }
    scene.rig.heartbeat(
        scene.models["0"], **facts, running=3, sequences=3, jobs=lines, memory_bytes=5_100_000_000,
        prompt_cache_bytes=800_000_000, architecture="qwen3", quantization="Q4_K_M",
        num_parameters=8_200_000_000, beat_at=1.0,
    )  # fmt: skip
    scene.rig.heartbeat(
        scene.models["1"], **facts, memory_bytes=3_400_000_000, architecture="gemma3",
        quantization="Q4_0", num_parameters=4_300_000_000, beat_at=1.0,
    )  # fmt: skip
    scene.rig.heartbeat(
        scene.models["2"], state=WorkerState.LOADING, load_fraction=0.71, beat_at=1.0,
        memory_bytes=1_600_000_000,
    )  # fmt: skip
