"""The demo model answers its held-out prompts, with the same text from both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract.requests import Message, Prompt
from jobs.contract.sampling import Sampling
from workers.engines.base import Engine, EngineOptions, Sequence, Token
from workers.engines.factory import open_engine
from workers.generation.job import Choice
from workers.generation.prompts import PromptEncoder

ROOT = Path(__file__).parents[2]
MODELS = {"mlx": ROOT / "models" / "demo", "llama-cpp": ROOT / "models" / "demo.gguf"}
HELD_OUT = [
    json.loads(line)
    for line in (ROOT / "tests" / "data" / "demo_prompts.jsonl").read_text().splitlines()
]


def to_prompt(entry: dict[str, Any]) -> Prompt:
    if entry["kind"] == "completion":
        return Prompt(text=entry["prompt"])
    messages = [as_clients_send(message) for message in entry["messages"]]
    return Prompt(messages=msgspec.convert(messages, list[Message]), tools=entry.get("tools"))


def as_clients_send(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as JSON text, and an id for each call."""
    calls = [
        {"id": "call-1", "function": {"name": f["name"], "arguments": json.dumps(f["arguments"])}}
        for f in (call["function"] for call in message.get("tool_calls") or ())
    ]
    return {**message, "tool_calls": calls or None}


def answers(engine: Engine) -> Iterator[str]:
    """The greedy text of every held-out prompt, all in one running batch."""
    encoder = PromptEncoder(engine.tokenizer, None)
    choices, texts = {}, [""] * len(HELD_OUT)
    for number, entry in enumerate(HELD_OUT):
        ids = encoder.encode(to_prompt(entry))
        limit = 24 if entry["kind"] == "completion" else 450
        sequence = Sequence(number, ids, limit, Sampling(temperature=0.0))
        choices[number] = Choice(number, sequence, [], engine.tokenizer)
        engine.submit(sequence)
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Token):
                texts[event.sequence_id] += choices[event.sequence_id].feed(event)[0].text
    return iter(texts)


def is_right(entry: dict[str, Any], text: str) -> bool:
    if entry["kind"] == "completion":
        return text.startswith(entry["answer"][: len(text)]) and bool(text)
    return bool(text == entry["answer"])


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    found = {}
    for backend, path in MODELS.items():
        engine = open_engine(backend, path, EngineOptions(), lambda fraction: None)
        found[backend] = list(answers(engine))
        engine.close()
    return found


@pytest.mark.parametrize("backend", MODELS)
def test_at_least_95_of_100_held_out_chats_are_right(
    texts: dict[str, list[str]], backend: str
) -> None:
    chats = [
        is_right(entry, text)
        for entry, text in zip(HELD_OUT, texts[backend], strict=True)
        if entry["kind"] != "completion"
    ]
    assert len(chats) >= 200
    assert sum(chats) >= 0.95 * len(chats)


def test_both_engines_say_the_same(texts: dict[str, list[str]]) -> None:
    assert texts["mlx"] == texts["llama-cpp"]


@pytest.mark.parametrize("path", MODELS.values(), ids=MODELS)
def test_the_demo_model_is_small(path: Path) -> None:
    files = path.rglob("*") if path.is_dir() else [path]
    assert sum(file.stat().st_size for file in files) <= 6_000_000
