"""A job's events to ollama's lines of JSON, and to one object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.ollama.answers import Answer, LineEncoder
from api.execution.shapes import Shape
from api.web.errors import Problem
from jobs.contract.events import CalledTool, Event, EventKind, Timings, TokenLogprob, Usage

ENDED = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 7_500_000,
    "load_duration": 1_500_000,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 2_000_000,
    "eval_count": 4,
    "eval_duration": 3_000_000,
}


def event(kind: EventKind, **fields: Any) -> Event:
    return Event(job="chatcmpl-1", attempt=1, seq=1, kind=kind, t=1_700_000_000.25, **fields)


def chunk(text: str = "", **fields: Any) -> Event:
    return event(EventKind.CHUNK, text=text, **fields)


def finished() -> Event:
    timings = Timings(queue_ms=1.5, prefill_ms=2.0, ttft_ms=4.5, decode_ms=3.0)
    return event(EventKind.FINISHED, usage=Usage(3, 4, 1), timings=timings)


def lines(shape: Shape, *events: Event) -> list[dict[str, Any]]:
    encoder = LineEncoder(Answer(shape, "demo"))
    text = b"".join(encoder.feed(one) for one in (*events, finished())).decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def whole(shape: Shape, *events: Event) -> dict[str, Any]:
    return Answer(shape, "demo").whole([*events, finished()])


def test_a_chat_is_a_line_per_chunk_and_a_last_one_with_counts_and_nanoseconds() -> None:
    shown = lines(
        Shape.OLLAMA_CHAT,
        event(EventKind.STARTED),
        chunk(reasoning="They greet."),
        chunk("Hel"),
        chunk("lo", finish_reason="stop"),
    )
    facts = {"model": "demo", "created_at": "2023-11-14T22:13:20.250000Z"}
    assert shown == [
        {**facts, "message": message, "done": False}
        for message in (
            {"role": "assistant", "content": "", "thinking": "They greet."},
            {"role": "assistant", "content": "Hel"},
            {"role": "assistant", "content": "lo"},
        )
    ] + [{**facts, "message": {"role": "assistant", "content": ""}, **ENDED}]


def test_a_text_has_the_same_under_its_own_names() -> None:
    events = (chunk(reasoning="Hm."), chunk("a"), chunk("b", finish_reason="length"))
    shown = lines(Shape.OLLAMA_TEXT, *events)
    assert [(line["response"], line.get("thinking")) for line in shown] == [
        ("", "Hm."), ("a", None), ("b", None), ("", None),
    ]  # fmt: skip
    assert shown[-1]["done_reason"] == "length"
    one = whole(Shape.OLLAMA_TEXT, *events)
    assert (one["response"], one["thinking"], one["done"]) == ("ab", "Hm.", True)
    assert "message" not in one


CALLS = (
    chunk(tool_calls=[CalledTool(0, "call_a", "add", '{"a": 2,')]),
    chunk(tool_calls=[CalledTool(0, "", "", ' "b": 3}')]),
    chunk(tool_calls=[CalledTool(1, "call_b", "now", "{}")]),
    chunk(finish_reason="tool_calls"),
)


def test_a_call_is_told_when_it_is_whole() -> None:
    shown = lines(Shape.OLLAMA_CHAT, *CALLS)
    calls = [line["message"].get("tool_calls") for line in shown]
    add = {"index": 0, "name": "add", "arguments": {"a": 2, "b": 3}}
    now = {"index": 1, "name": "now", "arguments": {}}
    assert calls == [
        [{"id": "call_a", "function": add}], [{"id": "call_b", "function": now}], None,
    ]  # fmt: skip
    assert shown[-1]["done_reason"] == "stop"
    answer = json.loads(json.dumps(whole(Shape.OLLAMA_CHAT, *CALLS), default=lambda raw: "raw"))
    names = [call["function"]["name"] for call in answer["message"]["tool_calls"]]
    assert names == ["add", "now"]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [('{"a": 2, "b": [1, 2', {"a": 2, "b": [1, 2]}), ("[1]", {"arguments": [1]}), ("{", {})],
)
def test_the_arguments_of_a_cut_call_are_an_object_too(arguments: str, shown: Any) -> None:
    cut = chunk(tool_calls=[CalledTool(0, "c", "f", arguments)], finish_reason="length")
    [line, end] = lines(Shape.OLLAMA_CHAT, cut)
    assert line["message"]["tool_calls"][0]["function"]["arguments"] == shown
    assert end["done_reason"] == "length"


def test_probabilities_come_with_their_text_and_all_together_in_one_object() -> None:
    top = [TokenLogprob(1, "a", -0.5, [97]), TokenLogprob(2, "b", -2.0, [98])]
    events = [
        chunk(text, logprobs=[TokenLogprob(1, text, -0.5, [97], top)]) for text in ("a", "", "c")
    ]
    shown = lines(Shape.OLLAMA_CHAT, *events)
    assert [[token["token"] for token in line.get("logprobs", ())] for line in shown] == [
        ["a"], [""], ["c"], [],
    ]  # fmt: skip
    assert [one["token"] for one in shown[0]["logprobs"][0]["top_logprobs"]] == ["a", "b"]
    assert len(whole(Shape.OLLAMA_CHAT, *events)["logprobs"]) == 3


@pytest.mark.parametrize("shape", [Shape.OLLAMA_CHAT, Shape.OLLAMA_TEXT])
def test_an_error_is_a_last_line_and_a_pause_a_line_without_text(shape: Shape) -> None:
    encoder = LineEncoder(Answer(shape, "demo"))
    problem = Problem(500, "server_error", "worker_lost", "it died")
    expected = {"error": "it died", "code": "worker_lost", "param": None}
    assert json.loads(encoder.failed(problem)) == expected
    pause = json.loads(encoder.ping())
    assert (pause["done"], pause.get("response", pause.get("message", {}).get("content"))) == (
        False, "",
    )  # fmt: skip
