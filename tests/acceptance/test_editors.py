"""Editors, agents and front ends with their default bodies: answered, and with something in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.editors import ALL, MESSAGES, RESPONSES, Sent
from tests.helpers.server import Server
from tests.helpers.sse import frames

pytestmark = pytest.mark.timeout(180)


def said(sent: Sent, answer: Any) -> str:
    """The text of an answer, its thoughts and calls, whole or streamed."""
    parts = frames(answer.text) if sent.body.get("stream") else [answer.json()]
    assert not [part for part in parts if isinstance(part, dict) and "error" in part], answer.text
    return "".join(_texts(part) for part in parts)


def _texts(part: Any) -> str:
    """What the text fields of all these dialects say, at whatever depth."""
    if isinstance(part, list):
        return "".join(map(_texts, part))
    if not isinstance(part, dict):
        return ""
    names = ("content", "text", "delta", "reasoning_content", "thinking", "arguments")
    own = [part[name] for name in names if isinstance(part.get(name), str)]
    inner = [part.get(name) for name in ("choices", "message", "delta", "function", "tool_calls")]
    return "".join([*own, *map(_texts, inner)])


def check_end(sent: Sent, text: str) -> None:
    """That a stream came to its dialect's end."""
    last = {RESPONSES: "event: response.completed", MESSAGES: "event: message_stop"}
    mark = last.get(sent.path.partition("?")[0], '"stop":true')
    assert mark in text or text.endswith("data: [DONE]\n\n"), text[-500:]


def is_answered(sent: Sent) -> bool:
    """Requests that only fill the prompt cache get no text."""
    return sent.body.get("n_predict") != 0


@pytest.mark.parametrize("sent", ALL, ids=[sent.program for sent in ALL])
def test_what_a_program_sends_by_default_is_answered(server: Server, sent: Sent) -> None:
    server.load(sent.model)
    answer = server.post(sent.path, sent.body)
    assert answer.status_code == 200, answer.text
    assert bool(said(sent, answer).strip()) == is_answered(sent), answer.text
    if sent.body.get("stream"):
        check_end(sent, answer.text)


def test_claude_codes_prompt_is_counted(server: Server) -> None:
    [sent] = [sent for sent in ALL if sent.program == "Claude Code"]
    server.load(sent.model)
    unsent = {"max_tokens", "stream", "temperature", "metadata"}
    body = {name: value for name, value in sent.body.items() if name not in unsent}
    answer = server.post(f"{MESSAGES}/count_tokens?beta=true", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["input_tokens"] > 50
