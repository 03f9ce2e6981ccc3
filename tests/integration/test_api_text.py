"""Tokenize, detokenize and apply-template through HTTP: llama-server's shapes and paths."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.contract.requests import (
    ApplyTemplateRequest,
    DetokenizeRequest,
    Message,
    Prompt,
    TokenizeRequest,
)
from tests.integration.api_rig import Rig, check_error_shape

HELLO = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def ask(rig: Rig, path: str, body: Any, **ending: Any) -> tuple[Any, Any]:
    """The request that reached the worker, and the answer once the job has ended so."""
    future = rig.post_soon(path, body)
    job = rig.take_control()
    job.started()
    job.finished(**ending)
    answer = future.result()
    assert answer.headers["x-job-id"] == job.job_id
    stored = rig.http.get(f"/v1/jobs/{job.job_id}").json()
    assert stored["result"] == answer.json()
    return job.request, answer.json()


@pytest.mark.parametrize("path", ["/v1/tokenize", "/tokenize"])
@pytest.mark.parametrize("field", ["content", "prompt", "text"])
def test_a_text_has_several_names(rig: Rig, path: str, field: str) -> None:
    rig.load()
    request, answer = ask(rig, path, {field: "abc"}, token_ids=[1, 2])
    assert request == TokenizeRequest("abc")
    assert answer == {"tokens": [1, 2], "length": 2}


def test_pieces_are_text_or_the_bytes_of_a_part_of_a_character(rig: Rig) -> None:
    rig.load()
    body = {
        "content": "é a",
        "add_special": True,
        "parse_special": False,
        "with_pieces": True,
    }
    ending = {"token_ids": [5, 6, 7], "pieces": [b"\xc3", b"\xa9", b" a"]}
    request, answer = ask(rig, "/v1/tokenize", body, **ending)
    assert request == TokenizeRequest("é a", True, False, True)
    assert answer["tokens"] == [
        {"id": 5, "piece": [0xC3]},
        {"id": 6, "piece": [0xA9]},
        {"id": 7, "piece": " a"},
    ]


def test_an_empty_text_has_no_tokens(rig: Rig) -> None:
    rig.load()
    assert ask(rig, "/v1/tokenize", {"content": ""})[1] == {"tokens": [], "length": 0}


@pytest.mark.parametrize("path", ["/v1/detokenize", "/detokenize"])
def test_tokens_become_a_text(rig: Rig, path: str) -> None:
    rig.load()
    request, answer = ask(rig, path, {"tokens": [1, 2]}, text="abc")
    assert (request, answer) == (DetokenizeRequest([1, 2]), {"content": "abc"})


@pytest.mark.parametrize("path", ["/v1/apply-template", "/apply-template"])
def test_messages_become_a_prompt(rig: Rig, path: str) -> None:
    rig.load()
    body = {"messages": HELLO, "tools": [TOOL], "add_generation_prompt": False}
    request, answer = ask(rig, path, body, text="user: hi")
    prompt = Prompt(messages=[Message("user", "hi")], tools=[TOOL])
    assert request == ApplyTemplateRequest(prompt, False)
    assert answer == {"prompt": "user: hi"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/tokenize", {}, "content"),
        ("/v1/tokenize", {"content": "a", "text": "a"}, "content"),
        ("/v1/tokenize", {"content": 5}, "content"),
        ("/v1/tokenize", {"content": "\ud800"}, "content"),
        ("/v1/tokenize", {"content": "a", "with_pieces": 1}, "with_pieces"),
        ("/v1/detokenize", {}, "tokens"),
        ("/v1/detokenize", {"tokens": "a"}, "tokens"),
        ("/v1/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
        ("/v1/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/v1/apply-template", {}, "messages"),
        ("/v1/apply-template", {"messages": []}, "messages"),
        ("/v1/apply-template", {"messages": HELLO, "prompt": "a"}, "messages"),
        ("/v1/apply-template", {"messages": HELLO, "tools": [{}]}, "tools[0]"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_itself(
    rig: Rig, path: str, body: Any, param: str
) -> None:
    rig.load()
    headers = {"Content-Type": "application/json"}
    answer = rig.http.post(path, content=json.dumps(body), headers=headers)
    assert answer.status_code == 400
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == param


def test_what_the_worker_refuses_is_a_400(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/detokenize", {"tokens": [99999]})
    rig.take_control().failed("invalid_request", "token 99999 is not in the vocabulary", "tokens")
    assert future.result().status_code == 400


def test_no_model_is_a_404(rig: Rig) -> None:
    assert rig.post("/v1/tokenize", {"content": "a"}).status_code == 404
