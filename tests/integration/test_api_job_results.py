"""A job that is read later is shown in the body that a client of its route would have got."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from jobs.contract.events import TokenLogprob
from jobs.contract.records import JobStatus
from jobs.contract.requests import LoadRequest, UnloadRequest
from tests.helpers.samples import submission
from tests.integration.api_rig import Rig, Taken

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
MESSAGE: dict[str, Any] = {**HELLO, "max_tokens": 9}
THINKING = {"type": "enabled", "budget_tokens": 1024}
HIDDEN = {**MESSAGE, "max_tokens": 2000, "thinking": {**THINKING, "display": "omitted"}}
SHOWN = {**MESSAGE, "max_tokens": 2000, "thinking": THINKING}

Worker = Callable[[Taken], None]


def says_hello(job: Taken) -> None:
    job.started()
    job.chunk("", reasoning="They greet.")
    job.chunk("Hel")
    job.chunk("lo", finish_reason="stop", stop="!")
    job.finished()


def scores(job: Taken) -> None:
    top = [TokenLogprob(1, "a", -0.5, [97]), TokenLogprob(2, "b", -2.0, [98])]
    job.started()
    job.chunk("a", logprobs=[TokenLogprob(1, "a", -0.5, [97], top)], finish_reason="length")
    job.finished()


def embeds(job: Taken) -> None:
    job.started()
    for choice in range(len(job.request.inputs)):
        job.chunk("", choice=choice, embedding=struct.pack("<2f", 1.0, 0.0))
    job.finished()


def ends(**fields: Any) -> Worker:
    def end(job: Taken) -> None:
        job.started()
        job.finished(**fields)

    return end


LLAMA_SERVER = {"prompt": "x", "return_tokens": True, "stop": ["!"], "n_probs": 1}
ROUTES: list[tuple[str, dict[str, Any], Worker]] = [
    ("/v1/chat/completions", HELLO, says_hello),
    ("/v1/completions", {"prompt": "x", "n": 1}, says_hello),
    ("/v1/messages", MESSAGE, says_hello),
    ("/v1/messages", SHOWN, says_hello),
    ("/v1/messages", HIDDEN, says_hello),
    ("/v1/responses", {"input": "hi"}, says_hello),
    ("/completion", LLAMA_SERVER, says_hello),
    ("/completion", {"prompt": "x", "response_fields": ["content", "stop_type"]}, says_hello),
    ("/infill", {"input_prefix": "a", "input_suffix": "b"}, says_hello),
    ("/v1/internal/logits", {"prompt": "x"}, scores),
    ("/v1/embeddings", {"input": ["a", "b"]}, embeds),
    ("/v1/rerank", {"query": "a", "documents": ["b"]}, embeds),
    ("/v1/rerank", {"query": "a", "texts": ["b"], "return_text": True}, embeds),
    ("/v1/tokenize", {"content": "ab"}, ends(token_ids=[1, 2])),
    ("/v1/detokenize", {"tokens": [1]}, ends(text="a")),
    ("/v1/apply-template", HELLO, ends(text="<hi>")),
    ("/v1/internal/token-count", HELLO, ends(num_tokens=3)),
    ("/v1/chat/completions/input_tokens", HELLO, ends(num_tokens=3)),
    ("/v1/messages/count_tokens", HELLO, ends(num_tokens=3)),
    ("/v1/responses/input_tokens", {"input": "hi"}, ends(num_tokens=3)),
    ("/v1/internal/encode", {"text": "a"}, ends(token_ids=[1])),
    ("/v1/internal/decode", {"tokens": [1]}, ends(text="a")),
    ("/v1/internal/chat-prompt", HELLO, ends(text="<hi>")),
    ("/v1/internal/model/cache_limit", {"cache_limit": 5}, ends()),
    ("/api/chat", {**HELLO, "stream": False}, says_hello),
    ("/api/generate", {"prompt": "x", "stream": False, "logprobs": True}, scores),
]
IN_BACKGROUND = ROUTES[:6]


def take(rig: Rig, worker: Worker) -> Taken:
    return rig.take() if worker in (says_hello, scores) else rig.take_control()


@pytest.mark.parametrize(("path", "body", "worker"), ROUTES)
def test_who_looks_later_sees_what_who_waited_got(
    rig: Rig, path: str, body: dict[str, Any], worker: Worker
) -> None:
    rig.load()
    waiting = rig.post_soon(path, body)
    worker(take(rig, worker))
    answer = waiting.result()
    assert answer.status_code == 200, answer.text
    shown = rig.http.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    assert (shown["status"], timeless(shown["result"])) == ("finished", timeless(answer.json()))


@pytest.mark.parametrize(("path", "body", "worker"), IN_BACKGROUND)
def test_a_background_job_has_the_result_of_one_that_is_waited_for(
    rig: Rig, path: str, body: dict[str, Any], worker: Worker
) -> None:
    rig.load()
    waiting = rig.post_soon(path, body)
    worker(rig.take())
    expected = waiting.result()
    job_id = rig.post(path, {**body, "background": True}).json()["id"]
    worker(rig.take())
    result = rig.http.get(f"/v1/jobs/{job_id}").json()["result"]
    assert result is not None
    assert anonymous(result) == anonymous(expected.json())


@pytest.mark.parametrize(
    ("request_", "expected"),
    [(LoadRequest("fake", "fake"), {"load": "success"}), (UnloadRequest(), {"unload": "success"})],
)
def test_a_load_and_an_unload_have_the_answers_of_their_routes(
    rig: Rig, request_: Any, expected: dict[str, str]
) -> None:
    job = submission(request_, job_id="load-1")
    rig.store.submit(job)
    rig.take_control().finished()
    shown = rig.http.get("/v1/jobs/load-1").json()
    assert (shown["status"], shown["result"]) == (JobStatus.FINISHED, expected)


def test_a_response_that_was_not_to_be_stored_is_not_shown(rig: Rig) -> None:
    rig.load()
    waiting = rig.post_soon("/v1/responses", {"input": "hi", "store": False})
    says_hello(rig.take())
    job_id = waiting.result().headers["x-job-id"]
    shown = rig.http.get(f"/v1/jobs/{job_id}").json()
    assert (shown["status"], shown["result"]) == ("finished", None)


def timeless(body: Any) -> Any:
    """Without what the clock says of the request and not of the job."""
    return {**body, "created": None} if isinstance(body, dict) and "created" in body else body


def anonymous(body: Any) -> Any:
    """Without ids, times, and that it ran in the background."""
    if isinstance(body, dict):
        odd = {"id", "signature", "created", "created_at", "completed_at", "background"}
        return {name: anonymous(value) for name, value in body.items() if name not in odd}
    if isinstance(body, list):
        return [anonymous(one) for one in body]
    return body
