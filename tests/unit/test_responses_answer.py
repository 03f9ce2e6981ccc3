"""A job's events to response objects and streams, checked by the official client's types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from api.dialects.responses.answer import Answer, ResponseEncoder
from api.dialects.responses.items import to_items
from api.dialects.responses.pages import page_of
from api.dialects.responses.record import to_record
from api.dialects.responses.schema import ResponseBody
from api.dialects.responses.translate import to_job
from api.web.errors import Problem
from jobs.contract.errors import ContractError, ErrorInfo, InvalidRequestError
from jobs.contract.events import CalledTool, Event, EventKind, Timings, TokenLogprob, Usage
from jobs.contract.requests import GenerationDefaults
from jobs.storage.stored_responses import StoredResponse, decode_response, encode_response

_STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def record(**fields: Any) -> StoredResponse:
    body = ResponseBody.model_validate({"input": "hi", **fields})
    items = to_items(body.input, "ab")
    job = to_job(body, items, GenerationDefaults(), "demo")
    return to_record("resp_ab", 123, body, job, items)


def event(kind: EventKind, **fields: Any) -> Event:
    return Event(job="j", attempt=1, seq=1, kind=kind, t=200.5, **fields)


def chunk(text: str = "", end: str | None = None, **fields: Any) -> Event:
    return event(EventKind.CHUNK, text=text, token_ids=[1], finish_reason=end, **fields)


STARTED = event(EventKind.STARTED)
FINISHED = event(EventKind.FINISHED, usage=Usage(4, 3, 1, 2), timings=Timings(ttft_ms=2.0))
TEXT = (STARTED, chunk("Hel"), chunk("lo", end="stop"), FINISHED)
CALLS = [CalledTool(0, "call_1", "add", '{"a":1}'), CalledTool(1, "call_2", "add", "{}")]
EVERYTHING = (
    STARTED,
    chunk(reasoning="Hm"),
    chunk(reasoning="m."),
    chunk("I add."),
    chunk(tool_calls=CALLS, end="tool_calls"),
    FINISHED,
)


def read(data: bytes) -> list[Any]:
    """The frames' data, each checked for its event line and by the client's type."""
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, line = frame.split("\n")
        payload = json.loads(line.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        _STREAM_EVENT.validate_python(payload, strict=True)
        found.append(payload)
    return found


def stream(*events: Event, **fields: Any) -> list[Any]:
    encoder = ResponseEncoder(record(**fields))
    return read(b"".join(map(encoder.feed, events)))


def whole(*events: Event, **fields: Any) -> dict[str, Any]:
    answer = Answer(record(**fields))
    for one in events:
        answer.feed(one)
    shown = json.loads(json.dumps(answer.shown()))
    Response.model_validate(shown, strict=True)
    return dict(shown)


def types(frames: list[Any]) -> list[str]:
    return [frame["type"].removeprefix("response.") for frame in frames]


def test_a_text_is_streamed_in_the_strict_order() -> None:
    frames = stream(*TEXT)
    assert types(frames) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [frame["sequence_number"] for frame in frames] == list(range(10))
    assert frames[2]["item"]["status"] == "in_progress"
    assert frames[2]["item"]["content"] == []
    assert frames[6]["text"] == "Hello"
    assert frames[8]["item"] == frames[9]["response"]["output"][0]
    assert {f["item_id"] for f in frames if "item_id" in f} == {frames[2]["item"]["id"]}


def test_reasoning_text_and_calls_are_items_one_after_the_other() -> None:
    frames = stream(*EVERYTHING)
    opened = [f for f in frames if f["type"] == "response.output_item.added"]
    closed = [f for f in frames if f["type"] == "response.output_item.done"]
    assert [f["item"]["type"] for f in opened] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert (
        [f["output_index"] for f in opened] == [f["output_index"] for f in closed] == [0, 1, 2, 3]
    )
    order = types(frames)
    assert order.index("reasoning_text.done") < order.index("output_text.delta")
    assert order[order.index("function_call_arguments.delta") + 1] == "function_call_arguments.done"
    assert [f["item"] for f in closed] == frames[-1]["response"]["output"]
    assert len({f["item"]["id"] for f in closed}) == 4


def test_a_call_is_streamed_as_it_is_written() -> None:
    pieces = [CalledTool(0, "call_1", "add", ""), *(CalledTool(0, arguments=c) for c in '{"a":1}')]
    chunks = [chunk(tool_calls=[piece]) for piece in pieces]
    frames = stream(STARTED, *chunks, chunk(end="tool_calls"), FINISHED)
    deltas = [f["delta"] for f in frames if f["type"].endswith("arguments.delta")]
    assert deltas == list('{"a":1}')
    (item,) = frames[-1]["response"]["output"]
    assert (item["arguments"], item["status"]) == ('{"a":1}', "completed")
    cut = stream(STARTED, *chunks[:5], chunk(end="length"), FINISHED)[-1]["response"]
    assert (cut["status"], cut["output"][0]["status"]) == ("incomplete", "incomplete")
    assert cut["output"][0]["arguments"] == '{"a"'


def test_the_whole_answer_is_what_the_stream_ended_with() -> None:
    answer = whole(*EVERYTHING)
    assert answer == stream(*EVERYTHING)[-1]["response"]
    reasoning, message, first, second = answer["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hmm."}]
    assert message["content"][0]["text"] == "I add."
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_1", "add", '{"a":1}')
    assert second["call_id"] == "call_2"
    assert answer["status"] == "completed"
    assert answer["usage"] == {
        "input_tokens": 4,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    }
    assert answer["timings"]["ttft_ms"] == 2.0
    assert (answer["created_at"], answer["completed_at"]) == (123, 200)


def test_an_answer_cut_by_its_limit_is_incomplete() -> None:
    frames = stream(STARTED, chunk("Hel", end="length"), FINISHED)
    assert frames[-1]["type"] == "response.incomplete"
    answer = frames[-1]["response"]
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


def test_an_answer_of_nothing_has_an_empty_message() -> None:
    frames = stream(STARTED, chunk(end="stop"), FINISHED)
    assert "output_text.done" in types(frames)
    assert "output_text.delta" not in types(frames)
    assert frames[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_log_probabilities_are_with_the_text_of_their_tokens() -> None:
    one, two, three = (
        TokenLogprob(i, text, -0.5, list(text.encode()), [TokenLogprob(9, "x", -2.0, [120])])
        for i, text in enumerate(["Hel", "lo", "."])
    )
    frames = stream(
        STARTED,
        chunk(reasoning="Hm.", logprobs=[one]),
        chunk("Hel", logprobs=[one]),
        chunk(logprobs=[two]),
        chunk("lo", logprobs=[]),
        chunk(logprobs=[three], end="stop"),
        FINISHED,
    )
    deltas = [f for f in frames if f["type"] == "response.output_text.delta"]
    told = [(f["delta"], [p["token"] for p in f["logprobs"]]) for f in deltas]
    assert told == [("Hel", ["Hel"]), ("lo", ["lo"]), ("", ["."])]
    part = frames[-1]["response"]["output"][1]["content"][0]
    assert part["text"] == "Hello"
    assert part["logprobs"] == [p for f in deltas for p in f["logprobs"]]
    assert part["logprobs"][0]["top_logprobs"] == [{"token": "x", "logprob": -2.0, "bytes": [120]}]


def test_a_second_attempt_begins_nothing_anew() -> None:
    frames = stream(STARTED, chunk("Hel"), STARTED, chunk("lo", end="stop"), FINISHED)
    assert frames == stream(*TEXT)


@pytest.mark.parametrize("background", [False, True])
def test_a_resumed_stream_is_the_rest_of_the_first(background: bool) -> None:
    def told(after: int) -> bytes:
        encoder = ResponseEncoder(record(background=background), after)
        opening = encoder.queue() if background else b""
        return opening + b"".join(map(encoder.feed, EVERYTHING))

    full = told(-1)
    frames = full.decode().split("\n\n")[:-1]
    for after in range(len(frames)):
        rest = "".join(f"{frame}\n\n" for frame in frames[after + 1 :])
        assert told(after).decode() == rest


def test_a_background_stream_is_queued_first() -> None:
    encoder = ResponseEncoder(record(background=True))
    frames = read(encoder.queue() + b"".join(map(encoder.feed, TEXT)))
    assert types(frames)[:4] == ["created", "queued", "in_progress", "output_item.added"]
    assert [f["response"]["status"] for f in frames[:3]] == ["queued", "queued", "in_progress"]


def test_a_failure_is_told_with_what_was_there() -> None:
    lost = ErrorInfo("worker_lost", "the worker died")
    frames = stream(STARTED, chunk("Hel"), event(EventKind.FAILED, error=lost))
    assert frames[-1]["type"] == "response.failed"
    answer = frames[-1]["response"]
    assert answer["status"] == "failed"
    assert answer["error"] == {
        "code": "server_error",
        "message": "the worker died",
        "param": None,
        "type": "worker_lost",
    }
    assert answer["output"][0]["status"] == "incomplete"


def test_a_failure_reads_the_same_live_and_from_the_log() -> None:
    lost = ErrorInfo("worker_lost", "the worker died")
    live, replayed = ResponseEncoder(record()), ResponseEncoder(record())
    problem = Problem(500, "server_error", "worker_lost", "the worker died")
    assert live.failed(problem) == replayed.feed(event(EventKind.FAILED, error=lost))


def test_an_error_of_the_input_names_our_field() -> None:
    error = ErrorInfo("context_length_exceeded", "600 tokens do not fit", "messages")
    answer = whole(event(EventKind.FAILED, error=error), background=True)
    assert answer["error"]["code"] == "invalid_prompt"
    assert (answer["error"]["param"], answer["error"]["type"]) == (
        "input",
        "context_length_exceeded",
    )


def test_a_cancelled_job_is_a_cancelled_response() -> None:
    error = ErrorInfo("job_cancelled", "cancelled by request")
    answer = whole(STARTED, event(EventKind.CANCELLED, error=error))
    assert (answer["status"], answer["error"]) == ("cancelled", None)


def test_progress_is_no_frame() -> None:
    assert stream(event(EventKind.PROGRESS, phase="prefill", fraction=0.5)) == []


def test_a_record_survives_its_codec_and_others_are_refused() -> None:
    kept = record(metadata={"a": "b"})
    assert decode_response(encode_response(kept)) == kept
    for data in (b"", b"[]", b"\xff", encode_response(kept).replace(b'"echo"', b'"v":2,"echo"')):
        with pytest.raises(ContractError):
            decode_response(data)


def test_input_items_come_in_pages() -> None:
    items = [{"id": str(i)} for i in range(5)]
    page = page_of(items, limit=2, is_newest_first=True, after=None)
    assert ([item["id"] for item in page.data], page.has_more) == (["4", "3"], True)
    assert (page.first_id, page.last_id) == ("4", "3")
    page = page_of(items, limit=3, is_newest_first=False, after="1")
    assert ([item["id"] for item in page.data], page.has_more) == (["2", "3", "4"], False)
    assert page_of([], limit=3, is_newest_first=False, after=None).first_id == ""
    with pytest.raises(InvalidRequestError) as caught:
        page_of(items, limit=1, is_newest_first=True, after="x")
    assert caught.value.param == "after"


def test_a_stream_is_kept_alive_by_events_that_take_no_number() -> None:
    """Codex ends a stream without events; comments do not count."""
    pinged, plain = ResponseEncoder(record(stream=True)), ResponseEncoder(record(stream=True))
    frames = b""
    for one in TEXT:
        ping = json.loads(pinged.ping().partition(b"data: ")[2])
        assert ping["type"] == "keepalive"
        frames += pinged.feed(one)
    assert frames == b"".join(map(plain.feed, TEXT))
    last = json.loads(frames.decode().strip().rpartition("data: ")[2])["sequence_number"]
    ping = pinged.ping()
    assert ping.startswith(b"event: keepalive\n")
    assert json.loads(ping.partition(b"data: ")[2])["sequence_number"] == last
