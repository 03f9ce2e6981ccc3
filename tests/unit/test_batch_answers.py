"""Lines of the output, and which answers are none."""

from __future__ import annotations

import json

import msgspec
import pytest

from api.batches.lines.answers import ended, never_ran, postponed_of
from api.batches.lines.app import RouteAnswer
from api.batches.lines.requests import body_for, refusal_of
from api.batches.schema import window_s
from jobs.batches.input_file import InputLine
from jobs.batches.journal import LineEnd
from jobs.batches.records import BatchRecord

_OPENAI = BatchRecord(
    id=f"batch_{'a' * 32}", endpoint="/v1/completions", created_at=1, expires_at=2
)
_ANTHROPIC = BatchRecord(
    id=f"msgbatch_{'b' * 32}", endpoint="/v1/messages", created_at=1, expires_at=2, kind="anthropic"
)


def test_an_answer_has_openais_fields() -> None:
    found = json.loads(ended(_OPENAI, 7, "c", RouteAnswer(200, b'{"x":1}')).answer)
    assert found == {
        "id": f"batch_req_{'a' * 32}_7",
        "custom_id": "c",
        "response": {"status_code": 200, "request_id": f"bline-{'a' * 32}-7", "body": {"x": 1}},
        "error": None,
    }


def test_what_never_ran_has_an_error_and_no_response() -> None:
    found = json.loads(never_ran(_OPENAI, 7, "c", LineEnd.EXPIRED).answer)
    assert (found["response"], found["error"]["code"]) == (None, "batch_expired")


def test_results_of_anthropic_have_their_types() -> None:
    error = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
    answers = [
        ended(_ANTHROPIC, 1, "c", RouteAnswer(200, b'{"id":"msg_1"}')),
        ended(_ANTHROPIC, 1, "c", RouteAnswer(400, error)),
        never_ran(_ANTHROPIC, 1, "c", LineEnd.CANCELLED),
        never_ran(_ANTHROPIC, 1, "c", LineEnd.EXPIRED),
    ]
    results = [json.loads(one.answer)["result"] for one in answers]
    assert [one["type"] for one in results] == ["succeeded", "errored", "canceled", "expired"]
    assert results[0]["message"] == {"id": "msg_1"}
    assert results[1]["error"] == json.loads(error)


def test_line_breaks_of_unicode_are_escaped() -> None:
    body = json.dumps({"t": "a\u2028b\u2029c\u0085d"}, ensure_ascii=False).encode()
    answer = ended(_OPENAI, 1, "\u2028", RouteAnswer(200, body)).answer
    assert len(answer.decode().splitlines()) == 1
    assert json.loads(answer)["response"]["body"]["t"] == "a\u2028b\u2029c\u0085d"


@pytest.mark.parametrize(
    ("code", "is_postponed"),
    [("no_room", True), ("storage_lost", True), ("invalid_request", False), ("internal", False)],
)
def test_what_says_nothing_of_the_line_is_tried_again(code: str, is_postponed: bool) -> None:
    body = json.dumps({"error": {"code": code, "message": "m"}}).encode()
    assert (postponed_of(RouteAnswer(503, body)) is not None) is is_postponed


def test_a_success_and_an_odd_error_are_answers() -> None:
    assert postponed_of(RouteAnswer(200, b'{"error":{"code":"no_room"}}')) is None
    assert postponed_of(RouteAnswer(500, b"oops")) is None


@pytest.mark.parametrize("field", ["stream", "background"])
def test_lines_are_neither_streamed_nor_in_the_background(field: str) -> None:
    refused = refusal_of(InputLine("c", _raw({field: True})), "/v1/messages", 1000)
    assert refused is not None
    assert refused.status == 400
    assert field in json.loads(refused.body)["error"]["message"]
    assert refusal_of(InputLine("c", _raw({field: False})), "/v1/messages", 1000) is None


def test_a_body_is_as_large_as_the_routes_allow() -> None:
    refused = refusal_of(InputLine("c", _raw({"prompt": "x" * 100})), "/v1/completions", 50)
    assert refused is not None
    assert refused.status == 413


def test_responses_of_lines_are_not_stored() -> None:
    assert json.loads(body_for("/v1/responses", _raw({"input": "a", "store": True}))) == {
        "input": "a",
        "store": False,
    }


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def test_windows_are_hours_or_days() -> None:
    assert (window_s("24h"), window_s("30d"), window_s("720h")) == (86400, 30 * 86400, 30 * 86400)
    for wrong in ("", "24", "0h", "31d", "721h", "1m", "-1h", "1.5h", "24h "):
        with pytest.raises(ValueError, match="hours or days"):
            window_s(wrong)
