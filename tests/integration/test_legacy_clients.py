"""Every shape that older clients know is answered: earlier versions of the original server's, and
text-generation-webui's, whose names it took over. docs/older-clients.md says the same in words."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from api.execution.shapes import Shape
from jobs.contract.events import TokenLogprob
from jobs.contract.requests import (
    ApplyTemplateRequest,
    CacheLimitRequest,
    DetokenizeRequest,
    EmbedRequest,
    Message,
    Prompt,
    TokenCountRequest,
    TokenizeRequest,
    View,
)
from tests.helpers.sse import frames
from tests.integration.api_rig import Rig, check_error_shape

HI = [{"role": "user", "content": "hi", "message_id": "d0ae05ea"}]
PROMPT = Prompt(messages=[Message("user", "hi")])
LOAD = "/v1/internal/model/load"

# path, body, the job that the worker gets, how it ends there, the answer
CONTROL_JOBS: list[tuple[str, Any, Any, dict[str, Any], Any]] = [
    (
        "/v1/internal/token-count", {"model": "dummy", "prompt": "abc", "messages": []},
        TokenCountRequest(Prompt(text="abc")), {"num_tokens": 3}, {"length": 3},
    ),
    (
        "/v1/internal/token-count", {"model": "dummy", "prompt": "", "messages": HI},
        TokenCountRequest(PROMPT), {"num_tokens": 9}, {"length": 9},
    ),
    (
        "/v1/internal/token-count", {"text": "abc"},
        TokenCountRequest(Prompt(text="abc")), {"num_tokens": 3}, {"length": 3},
    ),
    (
        "/responses/input_tokens", {"model": "fake", "input": "abc"},
        TokenCountRequest(Prompt(messages=[Message("user", "abc")]), View(Shape.INPUT_TOKENS)),
        {"num_tokens": 3},
        {"object": "response.input_tokens", "input_tokens": 3},
    ),
    (
        "/v1/internal/encode", {"text": "abc"},
        TokenizeRequest("abc", add_special=True), {"token_ids": [1, 5]},
        {"tokens": [1, 5], "length": 2},
    ),
    (
        "/v1/internal/decode", {"tokens": [1, 5]},
        DetokenizeRequest([1, 5], View(Shape.TEXT)), {"text": "abc"}, {"text": "abc"},
    ),
    (
        "/v1/internal/chat-prompt", {"messages": HI},
        ApplyTemplateRequest(PROMPT), {"text": "user: hi"}, {"prompt": "user: hi"},
    ),
    (
        "/v1/internal/model/cache_limit", {"cache_limit": 1000},
        CacheLimitRequest(1000), {}, {"cache_limit": 1000},
    ),
]  # fmt: skip

# method, path, body, the answer
READ: list[tuple[str, str, Any, Any]] = [
    ("GET", "/v1/internal/health", None, {"status": "ok"}),
    ("GET", "/v1/internal/lora/list", None, {"lora_names": []}),
    ("GET", "/v1/internal/model/list", None, {"model_names": ["fake", "tiny.gguf"]}),
    ("GET", "/v1/internal/model/cache_memory", None, {"cache_memory_size": 77}),
    ("POST", "/v1/internal/stop-generation", None, "OK"),
    ("POST", "/management/process/clean-up", {"timeout": 1}, {"process_clean_up": "success"}),
]

REFUSED = [
    ("GET", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/kokoro/generate"),
    ("POST", "/v1/internal/model/kv_cache/import"),
    ("POST", "/v1/internal/lora/load"),
    ("POST", "/v1/internal/lora/unload"),
]


@pytest.mark.parametrize(("path", "body", "job", "ending", "expected"), CONTROL_JOBS)
def test_a_route_with_a_control_job(
    rig: Rig, path: str, body: Any, job: Any, ending: dict[str, Any], expected: Any
) -> None:
    rig.load()
    future = rig.post_soon(path, body)
    taken = rig.take_control()
    assert taken.request == job
    taken.started()
    taken.finished(**ending)
    assert future.result().json() == expected


@pytest.mark.parametrize(("method", "path", "body", "expected"), READ)
def test_a_route_without_one(rig: Rig, method: str, path: str, body: Any, expected: Any) -> None:
    rig.heartbeat(rig.load(), cache_bytes=77)
    answer = rig.http.request(method, path, json=body)
    assert answer.status_code == 200
    found = answer.json()
    assert found == expected or found.items() >= expected.items()


@pytest.mark.parametrize(
    "path", ["/v1/internal/model/kv_cache/export/d0ae05ea", "/webui", "/management/kv-cache"]
)
def test_what_there_never_was_or_is_no_more_is_a_404(rig: Rig, path: str) -> None:
    answer = rig.http.get(path)
    assert answer.status_code == 404
    check_error_shape(answer.json())


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_what_this_server_does_not_do_is_refused_with_a_reason(
    rig: Rig, method: str, path: str
) -> None:
    answer = rig.http.request(method, path)
    assert answer.status_code == 400
    check_error_shape(answer.json())
    assert answer.json()["detail"]


def test_stop_generation_ends_what_waits_and_runs(rig: Rig) -> None:
    rig.load()
    running, waiting = rig.chat_soon(), rig.chat_soon()
    job = rig.take()
    job.started()
    assert rig.post("/v1/internal/stop-generation", None).json() == "OK"
    job.cancel_reason = rig.record(job.job_id).cancel
    job.cancelled()
    assert {running.result().status_code, waiting.result().status_code} == {410}
    assert rig.waiting_ids() == []


def test_logits_are_probabilities_by_token_text(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/internal/logits", {"prompt": "a", "top_logits": 2})
    job = rig.take()
    assert job.request.prompts == [Prompt(text="a")]
    assert (job.request.max_tokens, job.request.sampling.num_logprobs) == (1, 2)
    likely = [TokenLogprob(5, "x", math.log(0.5)), TokenLogprob(6, "y", math.log(0.25))]
    job.started()
    job.chunk("x", logprobs=[TokenLogprob(5, "x", math.log(0.5), top=likely)])
    job.finished()
    found = future.result().json()["logits"]
    assert found == {"x": pytest.approx(0.5), "y": pytest.approx(0.25)}
    refused = rig.post("/v1/internal/logits", {"prompt": "a", "use_samplers": True})
    assert refused.json()["error"]["param"] == "use_samplers"


def test_embeddings_without_a_model_have_the_originals_shape_too(rig: Rig) -> None:
    rig.load()
    body = {"input": "a", "encoding_format": "float", "dimensions": None}
    future = rig.post_soon("/v1/embeddings", body)
    job = rig.take_control()
    assert job.request == EmbedRequest([Prompt(text="a")], model="fake", is_shown_twice=True)
    job.started()
    job.chunk("", embedding=struct.pack("<2f", 1.0, 0.0))
    job.finished(completion_tokens=0)
    answer = future.result().json()
    entry = {"object": "embedding", "index": 0, "embedding": [1.0, 0.0]}
    assert answer["embeddings"] == answer["data"] == [entry]


def test_the_newest_generation_can_be_looked_at(rig: Rig) -> None:
    rig.load()
    path = "/management/debug/latest"
    assert rig.http.get(path).status_code == 404
    body = {"prompt": "abc", "max_tokens": 5, "use_kv_cache": True, "kv_cache_threshold": 10}
    future = rig.post_soon("/v1/completions", body)
    job = rig.take()
    found = rig.http.get(path).json()
    assert (found["task_id"], found["task_category"]) == (job.job_id, "completions")
    assert found["params"]["max_tokens"] == 5
    assert found["stream_generate"] == {"model": "fake", "prompt": "abc"}
    job.answer("x")
    future.result()


def test_facts_of_a_model_have_the_names_of_each_version(rig: Rig) -> None:
    rig.load("5")
    info = rig.http.get("/v1/internal/model/info", headers={"X-Model-Id": "5"}).json()
    named = rig.http.get("/v1/internal/model/info/fake").json()
    assert named == info
    assert (info["model_name"], info["model_type"], info["loader"]) == ("fake", "fake", "fake")
    assert (info["is_loaded"], info["loaded_model_id"]) == (True, "5")
    assert (info["file_size_gb"], info["lora_names"]) == (0, [])


def test_a_process_shows_the_names_of_each_version(rig: Rig) -> None:
    rig.heartbeat(rig.load(), running=1)
    futures = [rig.chat_soon(), rig.chat_soon(stream=True)]
    job = rig.take()
    (process,) = rig.http.get("/management/processes").json()["processes"]
    assert (process["model_type"], process["trust_remote_code"]) == ("fake", False)
    queue = process["current_queue"]
    assert (queue["request_queue_size"], queue["pending_requests_count"]) == (1, 2)
    for entry in queue["queues"].values():
        task = next(iter(entry))
        assert task in ("completions", "completions_stream")
        assert entry["type"] == ("stream" if task == "completions_stream" else "request")
        assert isinstance(entry["start_time"], float)
    for taken in (job, rig.take()):
        taken.answer("x")
    assert [future.result().status_code for future in futures] == [200, 200]


def test_usage_tells_the_times_in_seconds(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/completions", {"prompt": "a"})
    rig.take().answer("x")
    assert future.result().json()["usage"]["prompt_eval_time"] == 0.0025
    future = rig.post_soon(
        "/v1/completions", {"prompt": "a", "stream": True, "complete_text": True}
    )
    rig.take().answer("x", "y")
    *_, last, _ = frames(future.result().text)
    assert last["choices"][0]["complete_text"] == "xy"
    assert {"prompt_eval_time", "generation_time"} <= last["usage"].keys()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("fake-20ms-thinking", {"enable_thinking": True, "thinking": True}),
        ("fake-20ms-no-thinking", {"enable_thinking": False, "thinking": False}),
        ("fake-20ms", None),
    ],
)
def test_a_suffix_of_the_model_says_whether_it_thinks(
    rig: Rig, model: str, expected: dict[str, bool] | None
) -> None:
    rig.load("0", "fake")
    rig.load("1", "fake-20ms")
    future = rig.chat_soon(model=model)
    job = rig.take("mgs-gen-1")
    assert job.request.prompts[0].template_options == expected
    job.answer("x")
    assert future.result().json()["model"] == "fake-20ms"


def test_a_models_own_name_has_no_suffix(rig: Rig) -> None:
    rig.load("0", "fake")
    rig.load("1", "fake-thinking")
    future = rig.chat_soon(model="fake-thinking")
    job = rig.take("mgs-gen-1")
    assert job.request.prompts[0].template_options is None
    job.answer("x")
    future.result()


def test_options_of_a_load_that_change_nothing_here_are_taken(rig: Rig) -> None:
    rig.supervise()
    future = rig.post_soon(
        LOAD,
        {
            "llm_model_name": "fake",
            "adapter_name": "",
            "auto_unload": True,
            "priority": 3,
            "use_kv_cache": True,
            "kv_cache_threshold": 5000,
            "trust_remote_code": None,
            "logit_bias": None,
        },
    )
    rig.take_control().finished()
    assert future.result().json() == {"load": "success"}


def test_a_load_may_use_text_generation_webuis_name(rig: Rig) -> None:
    rig.supervise()
    future = rig.post_soon(LOAD, {"model_name": "fake", "args": {}})
    job = rig.take_control()
    assert job.request.model_name == "fake"
    job.finished()
    assert future.result().status_code == 200


def test_a_path_from_a_client_is_refused(rig: Rig) -> None:
    answer = rig.post(LOAD, {"llm_model_name": "fake", "adapter_path": "/etc"})
    assert answer.json()["error"]["param"] == "adapter_path"
