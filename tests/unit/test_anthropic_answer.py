"""A job's events to messages and their streams, wherever the events were cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.anthropic.answer import Answer, MessageEncoder, whole_message
from api.dialects.anthropic.answer_schema import MessageErrorBody, MessageObject
from api.web.errors import Problem
from jobs.contract.events import CalledTool, Event, EventKind, Usage, add_calls
from tests.helpers.samples import event

PIECES = st.lists(
    st.tuples(st.sampled_from(["thinking", "text", "call"]), st.text(min_size=1, max_size=5)),
    max_size=8,
)


def new_answer(**fields: Any) -> Answer:
    return Answer("msg_1", "demo", **fields)


def started() -> Event:
    return event(EventKind.STARTED, usage=Usage(10))


def finished() -> Event:
    return event(EventKind.FINISHED, usage=Usage(10, 5, 4))


def called(index: int, value: str) -> CalledTool:
    return CalledTool(index, f"call_{index}", "add", json.dumps({"a": value}))


def pieces_of(call: CalledTool) -> list[CalledTool]:
    """The same call as it is written, a character at a time."""
    more = [CalledTool(call.index, arguments=one) for one in call.arguments]
    return [CalledTool(call.index, call.id, call.name, ""), *more]


def job(*chunks: Event, reason: str = "stop", stop: str | None = None) -> list[Event]:
    return [started(), *chunks, event(finish_reason=reason, stop=stop), finished()]


def frames(events: list[Event], answer: Answer | None = None) -> list[dict[str, Any]]:
    """The stream's events, each under its own name."""
    encoder = MessageEncoder(answer or new_answer())
    return parse(b"".join(encoder.feed(one) for one in events))


def parse(stream: bytes) -> list[dict[str, Any]]:
    found = []
    for frame in stream.decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def whole(events: list[Event], answer: Answer | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(whole_message(answer or new_answer(), events))
    MessageObject.model_validate(shown)
    return shown


def put_together(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of a stream; every rule of its order is held here."""
    assert [one["type"] for one in (stream[0], *stream[-2:])] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    message: dict[str, Any] = stream[0]["message"]
    assert message["content"] == []
    inputs = ""
    is_open = False
    for one in stream[1:-2]:
        if one["type"] == "content_block_start":
            assert not is_open
            assert one["index"] == len(message["content"])
            message["content"].append(one["content_block"])
            inputs, is_open = "", True
            continue
        assert is_open
        assert one["index"] == len(message["content"]) - 1
        block = message["content"][-1]
        if one["type"] == "content_block_stop":
            is_open = False
            if block["type"] == "tool_use":
                block["input"] = json.loads(inputs)
            continue
        delta = dict(one["delta"])
        kind = delta.pop("type")
        if kind == "input_json_delta":
            inputs += delta["partial_json"]
            continue
        assert (
            kind
            in {"text": ["text_delta"], "thinking": ["thinking_delta", "signature_delta"]}[
                block["type"]
            ]
        )
        for name, value in delta.items():
            block[name] += value
    assert not is_open
    end = stream[-2]
    return {**message, **end["delta"], "usage": end["usage"]}


def cut(pieces: list[tuple[str, str]], is_whole: bool) -> list[Event]:
    """Chunks of one character, or of all that fits: thoughts, then text, then calls."""
    chunks: list[Event] = []
    for index, (kind, value) in enumerate(pieces):
        parts = [value] if is_whole or kind == "call" else list(value)
        for part in parts:
            if kind == "call":
                call = called(index, part)
                each = [call] if is_whole else pieces_of(call)
                chunks += [event(tool_calls=[one]) for one in each]
                continue
            fields = {"reasoning": part if kind == "thinking" else ""}
            chunks.append(event(text=part if kind == "text" else "", **fields))
    return chunks


def added(calls: list[CalledTool], more: list[CalledTool]) -> list[CalledTool]:
    found = list(calls)
    add_calls(found, more)
    return found


def joined(chunks: list[Event]) -> list[Event]:
    """The same with neighbours as one event, as far as an event can say it."""
    found: list[Event] = []
    for chunk in chunks:
        last = found[-1] if found else None
        is_later = last is not None and not (
            (chunk.reasoning and (last.text or last.tool_calls)) or (chunk.text and last.tool_calls)
        )
        if last is None or not is_later:
            found.append(chunk)
            continue
        found[-1] = event(
            reasoning=last.reasoning + chunk.reasoning,
            text=last.text + chunk.text,
            tool_calls=added(last.tool_calls, chunk.tool_calls),
        )
    return found


@given(PIECES, st.booleans())
def test_stream_and_whole_answer_say_the_same_wherever_events_were_cut(
    pieces: list[tuple[str, str]], is_shown: bool
) -> None:
    variants = [cut(pieces, True), cut(pieces, False), joined(cut(pieces, False))]
    wholes = [whole(job(*v), new_answer(is_thinking_shown=is_shown)) for v in variants]
    streams = [frames(job(*v), new_answer(is_thinking_shown=is_shown)) for v in variants]
    assert wholes[0] == wholes[1] == wholes[2]
    assert [put_together(stream) for stream in streams] == wholes


def test_a_message_is_anthropics_to_the_letter() -> None:
    chunks = [event(reasoning="Hm."), event(text="I"), event(text=" add.")]
    call = event(tool_calls=[called(0, "1")])
    shown = whole(job(*chunks, call, reason="tool_calls"))
    assert shown == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "demo",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "msg_1"},
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "call_0", "name": "add", "input": {"a": "1"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 6,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
            "service_tier": "standard",
        },
    }


def test_the_first_frame_says_how_many_tokens_went_in() -> None:
    first, *_ = frames([started()])
    assert first["type"] == "message_start"
    assert first["message"]["usage"]["input_tokens"] == 10
    assert first["message"]["stop_reason"] is None


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_why_a_message_ended(reason: str, stop: str | None, expected: Any) -> None:
    events = job(event(text="a"), reason=reason, stop=stop)
    for shown in (whole(events), put_together(frames(events))):
        assert (shown["stop_reason"], shown["stop_sequence"]) == expected


def test_a_second_attempt_does_not_begin_again() -> None:
    again = event(EventKind.STARTED, usage=Usage(10), attempt=2)
    events = [started(), event(text="a"), again, event(text="b"), event(finish_reason="stop")]
    assert put_together(frames([*events, finished()]))["content"] == [
        {"type": "text", "text": "ab"}
    ]


def test_thoughts_that_are_not_to_be_shown_leave_their_signature() -> None:
    answer = new_answer(is_thinking_shown=False)
    shown = whole(job(event(reasoning="Hm."), event(text="a")), answer)
    assert shown["content"][0] == {"type": "thinking", "thinking": "", "signature": "msg_1"}


@pytest.mark.parametrize(("arguments", "expected"), [("[1]", [1]), ('"x"', "x"), ("null", None)])
def test_arguments_that_are_no_object_come_in_one(arguments: str, expected: Any) -> None:
    call = event(tool_calls=[CalledTool(0, "c", "add", arguments)])
    assert whole(job(call))["content"][0]["input"] == {"arguments": expected}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ('{"a": 1, "b": "x', {"a": 1}), ('{"a": 12345678901234567890123}', None)],
)
def test_a_cut_call_has_what_is_whole_and_integers_keep_their_digits(
    arguments: str, expected: Any
) -> None:
    cut = event(tool_calls=[CalledTool(0, "c", "add", arguments)])
    shown = whole(job(cut, reason="length"))
    wanted = json.loads(arguments) if expected is None else expected
    assert shown["content"][0]["input"] == wanted
    assert shown["stop_reason"] == "max_tokens"


def test_a_message_without_any_block_has_an_empty_text() -> None:
    for shown in (whole(job()), put_together(frames(job()))):
        assert shown["content"] == [{"type": "text", "text": ""}]


def test_progress_and_a_silent_chunk_make_no_frames() -> None:
    encoder = MessageEncoder(new_answer())
    encoder.feed(started())
    assert encoder.feed(event(EventKind.PROGRESS, phase="prefill", fraction=0.5)) == b""
    assert encoder.feed(event()) == b""


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (410, "invalid_request_error"),
        (413, "request_too_large"),
        (421, "permission_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_an_error_ends_a_stream_with_anthropics_type(status: int, kind: str) -> None:
    problem = Problem(status, "any", "some_code", "why")
    (found,) = parse(_error(problem))
    assert found == {
        "type": "error",
        "error": {
            "type": kind,
            "message": "why",
            "details": {"error_code": "some_code", "param": None},
        },
        "request_id": "msg_1",
    }
    MessageErrorBody.model_validate(found)


def _error(problem: Problem) -> bytes:
    return MessageEncoder(new_answer()).failed(problem)


def test_a_prompt_beyond_the_context_is_said_as_agents_look_for_it() -> None:
    problem = Problem(400, "any", "context_length_exceeded", "the prompt has 9 tokens", "messages")
    (found,) = parse(_error(problem))
    assert found["error"]["message"].startswith("prompt is too long: ")
