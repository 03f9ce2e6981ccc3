"""Chats with a server under check, timed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from api.cli.check.trial import Trial, error_of
from api.cli.client import Json

_WORDS = "stone river morning paper window garden letter winter summer bread"


@dataclass(slots=True)
class Answer:
    """A streamed answer. Times are seconds after the request."""

    text: str = ""
    error: str = ""
    first_s: float = 0.0
    total_s: float = 0.0
    usage: Json = field(default_factory=dict)

    @property
    def num_prompt(self) -> int:
        return int(self.usage.get("prompt_tokens", 0))

    @property
    def num_cached(self) -> int:
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))

    @property
    def num_tokens(self) -> int:
        return int(self.usage.get("completion_tokens", 0))

    @property
    def tokens_per_s(self) -> float:
        """Over the whole request: fast tokens share an event, so gaps say little."""
        return self.num_tokens / self.total_s


def chat(trial: Trial, messages: Sequence[Json], model_id: str = "0", num: int = 32) -> Answer:
    """Up to ``num`` tokens, greedy, streamed. Errors are in the answer."""
    body = {
        "messages": list(messages),
        "max_tokens": num,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    found, started = Answer(), time.monotonic()
    request = trial.http.stream(
        "POST", "/v1/chat/completions", json=body, headers={"X-Model-Id": model_id}
    )
    try:
        with request as response:
            if response.is_error:
                response.read()
                found.error = error_of(response)
            for line in response.iter_lines() if not found.error else ():
                _take(found, line, started)
    except httpx.HTTPError as error:
        found.error = f"{type(error).__name__}: {error}"
    found.total_s = time.monotonic() - started
    return found


def chats(trial: Trial, model_ids: Sequence[str], each: int, num: int) -> list[Future[Answer]]:
    """``each`` chats with each model at once, with prompts of their own."""
    pool = ThreadPoolExecutor(max_workers=each * len(model_ids))
    asked = [
        pool.submit(chat, trial, [user(f"{number} {_WORDS}")], model_id, num)
        for number in range(each)
        for model_id in model_ids
    ]
    pool.shutdown(wait=False)
    return asked


def user(text: str) -> Json:
    """A user's message."""
    return {"role": "user", "content": text}


def long_text(trial: Trial, model_id: str, num_tokens: int, first: str) -> str:
    """About ``num_tokens`` tokens of text that begins with ``first``, as no other text does."""
    length = trial.post("/v1/internal/token-count", {"prompt": _WORDS}, model_id).json()["length"]
    return f"{first} " + " ".join([_WORDS] * max(1, num_tokens // int(length)))


def _take(found: Answer, line: str, started: float) -> None:
    data = line.removeprefix("data: ")
    if data == line or data == "[DONE]":
        return
    chunk = json.loads(data)
    if "error" in chunk:
        found.error = str(chunk["error"]["message"])
        return
    found.usage = chunk.get("usage") or found.usage
    for choice in chunk.get("choices", ()):
        delta = choice["delta"]
        text = (delta.get("content") or "") + (delta.get("reasoning_content") or "")
        if text and not found.text:
            found.first_s = time.monotonic() - started
        found.text += text
