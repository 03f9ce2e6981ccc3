"""ollama's routes over HTTP: streams, loading and unloading by empty prompts, models."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.contract.requests import EmbedRequest, Prompt, TokenCountRequest
from jobs.storage import names
from tests.helpers.waiting import wait_until
from tests.integration.api_rig import Rig, Taken, running_api

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def test_a_chat_is_streamed_as_lines_unless_it_is_not_to_be(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/api/chat", {**HELLO, "model": "fake"})
    job = rig.take()
    assert job.request.stream
    job.answer("a", "b")
    answer = future.result()
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-job-id"] == job.job_id
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["a", "b", ""]
    assert [line["done"] for line in lines] == [False, False, True]
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (3, 2)
    future = rig.post_soon("/api/chat", {**HELLO, "stream": False})
    rig.take().answer("a", "b")
    assert future.result().json()["message"] == {"role": "assistant", "content": "ab"}


def test_a_prompt_is_a_users_message_the_text_itself_or_a_gap(rig: Rig) -> None:
    rig.load()
    asked: list[dict[str, Any]] = [
        {"prompt": "x", "system": "s"},
        {"prompt": "x", "raw": True},
        {"prompt": "x", "suffix": "y"},
    ]
    prompts = []
    for body in asked:
        future = rig.post_soon("/api/generate", {**body, "stream": False})
        job = rig.take()
        prompts.append(job.request.prompts[0])
        job.answer("a", "b")
        assert future.result().json()["response"] == "ab"
    roles = [(message.role, message.content) for message in prompts[0].messages]
    assert roles == [("system", "s"), ("user", "x")]
    assert prompts[1:] == [Prompt(text="x"), Prompt(text="x", suffix="y")]


def test_a_failure_after_the_first_line_is_a_line(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/api/chat", HELLO)
    job = rig.take()
    job.started()
    job.chunk("a")
    job.failed("worker_lost", "it died")
    last = json.loads(future.result().text.splitlines()[-1])
    assert last == {"error": "it died", "code": "worker_lost", "param": None}
    future = rig.post_soon("/api/chat", HELLO)
    rig.take().failed("context_length_exceeded", "too long", "messages")
    answer = future.result()
    assert (answer.status_code, answer.json()["error"]) == (400, "too long")


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/api/chat", {}, {"message": {"role": "assistant", "content": ""}}),
        ("/api/chat", {"messages": []}, {"message": {"role": "assistant", "content": ""}}),
        ("/api/generate", {"keep_alive": -1}, {"response": ""}),
        ("/api/embed", {"input": ""}, {"embeddings": []}),
        ("/api/embeddings", {"prompt": ""}, {"embedding": []}),
    ],
)
def test_a_request_without_a_prompt_waits_until_the_model_is_ready(
    rig: Rig, path: str, body: dict[str, Any], text: dict[str, Any]
) -> None:
    rig.load()
    future = rig.post_soon(path, {**body, "model": "fake"})
    job = rig.take_control()
    assert isinstance(job.request, TokenCountRequest)
    assert not future.done()
    job.finished(num_tokens=1)
    answer = future.result().json()
    assert answer.items() >= text.items()
    assert answer.get("done_reason", "load") == "load"


def unload_soon(rig: Rig, path: str, **headers: str) -> Any:
    return rig.post_soon(path, {"model": "fake", "keep_alive": 0}, **headers)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_keep_alive_0_without_a_prompt_unloads(rig: Rig, path: str) -> None:
    rig.load()
    rig.supervise()
    future = unload_soon(rig, path)
    wait_until(lambda: not rig.desired_models.exists(names.slug_of("0")), "the unload")
    rig.take_control().finished()
    answer = future.result()
    assert (answer.status_code, answer.json()["done_reason"]) == (200, "unload")


def test_what_is_not_loaded_is_unloaded_already_and_what_is_not_there_is_a_404(rig: Rig) -> None:
    body = {"model": "tiny.gguf", "keep_alive": "0s"}
    assert rig.post("/api/generate", body).json()["done_reason"] == "unload"
    answer = rig.post("/api/generate", {**body, "model": "nothing"})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_an_unload_needs_the_management_key(tmp_path: Path, redis_url: str) -> None:
    keys = {"api_key": "user", "management_key": "boss"}
    with running_api(tmp_path, redis_url, **keys) as rig:
        rig.load()
        refused = unload_soon(rig, "/api/chat", Authorization="Bearer user").result()
        assert refused.status_code == 403
        assert refused.json()["code"] == "management_key_required"
        assert rig.desired_models.exists(names.slug_of("0"))


def embeds(job: Taken) -> None:
    job.started()
    for choice in range(len(job.request.inputs)):
        job.chunk("", choice=choice, embedding=struct.pack("<2f", 1.0, 0.0))
    job.finished()


def test_vectors_come_in_the_order_of_the_texts(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/api/embed", {"model": "fake", "input": ["a", "b"]})
    job = rig.take_control()
    texts = [Prompt(text="a"), Prompt(text="b")]
    assert job.request == EmbedRequest(texts, is_truncated=True, model="fake")
    embeds(job)
    answer = future.result().json()
    assert answer.pop("total_duration") > 0
    assert answer == {"model": "fake", "embeddings": [[1, 0], [1, 0]], "prompt_eval_count": 3}
    future = rig.post_soon("/api/embed", {"input": "a", "truncate": False})
    job = rig.take_control()
    assert not job.request.is_truncated
    embeds(job)
    assert future.result().json()["embeddings"] == [[1, 0]]
    future = rig.post_soon("/api/embeddings", {"prompt": "a"})
    embeds(rig.take_control())
    assert future.result().json() == {"embedding": [1, 0]}


def test_tags_are_what_a_request_may_name(tmp_path: Path, redis_url: str) -> None:
    with running_api(tmp_path, redis_url, model_aliases="gpt-4o=fake") as rig:
        rig.heartbeat(rig.load(), architecture="qwen3", quantization="Q4_K_M", num_parameters=10**9)
        found = {model["name"]: model for model in rig.http.get("/api/tags").json()["models"]}
        assert set(found) == {"fake", "gpt-4o", "tiny.gguf"}
        assert found["tiny.gguf"]["size"] == 4
        details = found["gpt-4o"]["details"]
        assert (details["family"], details["parameter_size"]) == ("qwen3", "1.0B")
        digests = {model["digest"] for model in found.values()}
        assert (len(digests), {len(digest) for digest in digests}) == (2, {64})


def test_what_is_in_memory_is_listed_with_its_context_and_end(rig: Rig) -> None:
    assert rig.http.get("/api/ps").json() == {"models": []}
    desired = rig.load()
    rig.heartbeat(desired, memory_bytes=5000)
    [model] = rig.http.get("/api/ps").json()["models"]
    assert (model["name"], model["size"], model["context_length"]) == ("fake", 5000, 512)
    assert model["expires_at"] > "2300"
    rig.desired_models.change(names.slug_of("0"), desired.uid, ttl_s=60.0)
    [model] = rig.http.get("/api/ps").json()["models"]
    assert model["expires_at"] < "2300"


def test_a_model_is_shown_with_the_context_that_it_has(rig: Rig) -> None:
    rig.heartbeat(rig.load(), architecture="fake", num_parameters=7)
    shown = rig.post("/api/show", {"name": "fake"}).json()
    assert shown["model_info"] == {
        "general.architecture": "fake",
        "general.parameter_count": 7,
        "fake.context_length": 512,
    }
    assert shown["parameters"].split() == ["num_ctx", "512"]
    assert shown["capabilities"] == ["completion", "insert"]
    missing = rig.post("/api/show", {"model": "nothing"})
    assert (missing.status_code, missing.json()["param"]) == (404, "model")
    assert rig.post("/api/show", {}).json()["param"] == "model"


def test_a_pull_is_a_job_whose_progress_comes_in_lines(rig: Rig) -> None:
    rig.supervise()
    body = {"model": "hf.co/someone/some-GGUF:Q4_K_M"}
    future = rig.post_soon("/api/pull", body)
    job = rig.take(names.PULL_QUEUE)
    assert (job.request.repo, job.request.quant) == ("someone/some-GGUF", "Q4_K_M")
    job.progress("pull", 0.5, completed=5, total=10, file="a.gguf")
    job.finished(text="a.gguf")
    answer = future.result()
    assert answer.headers["content-type"] == "application/x-ndjson"
    sizes = {"digest": body["model"], "total": 10, "completed": 5}
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"status": "pulling manifest"},
        {"status": "pulling a.gguf", **sizes},
        {"status": "success"},
    ]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_pull_that_fails_says_why(rig: Rig, is_streamed: bool) -> None:
    rig.supervise()
    future = rig.post_soon("/api/pull", {"name": "someone/some", "stream": is_streamed})
    rig.take(names.PULL_QUEUE).failed("model_not_found", "the hub has no such model")
    answer = future.result()
    assert answer.status_code == (200 if is_streamed else 404)
    last = json.loads(answer.text.splitlines()[-1])
    assert last["error"] == "model not found: the hub has no such model"


def test_a_model_on_disk_is_deleted_unless_it_is_loaded(rig: Rig) -> None:
    rig.load("0", "tiny.gguf")
    body = {"model": "tiny.gguf"}
    assert rig.http.request("DELETE", "/api/delete", json=body).status_code == 409
    rig.desired_models.discard(names.slug_of("0"))
    assert rig.http.request("DELETE", "/api/delete", json=body).status_code == 200
    assert not (rig.settings.models_dir / "tiny.gguf").exists()
    missing = rig.http.request("DELETE", "/api/delete", json=body)
    assert (missing.status_code, missing.json()["param"]) == (404, "model")


def test_programs_are_greeted_and_told_a_version(rig: Rig) -> None:
    assert rig.http.get("/").text == "Ollama is running"
    assert rig.http.head("/").status_code == 200
    assert "Ollama" not in rig.http.get("/", headers={"Accept": "text/html,*/*"}).text
    assert rig.http.get("/api/version").json() == {"version": "0.33.0"}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/nothing", 404), ("GET", "/api/chat", 405)]
)
def test_errors_of_the_framework_have_the_same_shape(
    rig: Rig, method: str, path: str, status: int
) -> None:
    answer: httpx.Response = rig.http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "code", "param"}
