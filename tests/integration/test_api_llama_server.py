"""llama-server's own routes through HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.contract.requests import Prompt, TokenCountRequest
from tests.integration.api_rig import Rig, check_error_shape


def test_a_completion_is_answered_whole_and_streamed(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/completion", {"prompt": "x", "n_predict": 5, "return_tokens": True})
    job = rig.take()
    assert (job.request.prompts, job.request.max_tokens) == ([Prompt(text="x")], 5)
    job.answer("a", "b")
    answer = future.result()
    assert answer.headers["x-job-id"] == job.job_id
    assert (answer.json()["content"], answer.json()["tokens"]) == ("ab", [7, 7])
    future = rig.post_soon("/completion", {"prompt": "x", "stream": True})
    rig.take().answer("a", "b")
    lines = [line for line in future.result().text.split("\n\n") if line.startswith("data: ")]
    shown = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [(one["content"], one["stop"]) for one in shown] == [
        ("a", False), ("b", False), ("", True),
    ]  # fmt: skip


def test_a_gap_is_filled(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/infill", {"input_prefix": "a", "input_suffix": "c"})
    job = rig.take()
    assert job.request.prompts == [Prompt(text="a", suffix="c")]
    job.failed("unsupported_parameter", "suffix: this model cannot", "suffix")
    assert future.result().status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/completion", {}, "prompt"),
        ("/completion", {"prompt": 5}, "prompt"),
        ("/completion", {"prompt": "x", "n_predict": 2.5}, "n_predict"),
        ("/completion", {"prompt": "x", "temperature": "hot"}, "temperature"),
        ("/completion", {"prompt": "x", "stop": 5}, "stop"),
        ("/completion", {"prompt": "\ud800"}, "prompt"),
        ("/infill", {"input_extra": [{}]}, "input_extra[0].text"),
        ("/infill", {"input_extra": [{"filename": 5, "text": "a"}]}, "input_extra[0].filename"),
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


def test_slots_and_props_are_the_workers(rig: Rig) -> None:
    rig.heartbeat(rig.load(), slots=3, sequences=1)
    slots = rig.http.get("/slots").json()
    assert [slot["is_processing"] for slot in slots] == [True, False, False]
    assert {slot["n_ctx"] for slot in slots} == {512}
    props = rig.http.get("/props").json()
    assert (props["total_slots"], props["model_alias"]) == (3, "fake")
    assert props["default_generation_settings"] == {"n_ctx": 512}
    assert rig.http.get("/slots", headers={"X-Model-Id": "7"}).status_code == 404


def test_a_chats_tokens_are_counted_under_llama_servers_name(rig: Rig) -> None:
    rig.load()
    body = {"messages": [{"role": "user", "content": "hi"}]}
    future = rig.post_soon("/chat/completions/input_tokens", body)
    job = rig.take_control()
    assert isinstance(job.request, TokenCountRequest)
    job.finished(num_tokens=9)
    assert future.result().json()["input_tokens"] == 9
