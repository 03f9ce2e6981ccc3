"""Embeddings through HTTP: OpenAI's shapes, both encodings, wrong input by its name."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from openai import OpenAI

from jobs.contract.requests import EmbedRequest, Prompt
from tests.integration.api_rig import Rig, Taken, check_error_shape

PATH = "/v1/embeddings"
VECTORS = [[0.5, -0.25, 1.0], [0.0, 0.125, -2.0]]


def give(job: Taken, *vectors: list[float]) -> None:
    """Answer as a worker does."""
    job.started()
    for index, vector in enumerate(vectors):
        data = struct.pack(f"<{len(vector)}f", *vector)
        job.chunk("", choice=index, embedding=data)
    job.finished(completion_tokens=0)


def test_vectors_are_numbers_unless_asked_otherwise(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon(PATH, {"input": ["a", "b"], "model": "dummy", "user": "me"})
    job = rig.take_control()
    assert job.request == EmbedRequest([Prompt(text="a"), Prompt(text="b")], model="fake")
    give(job, *VECTORS)
    answer = future.result()
    assert answer.headers["x-job-id"] == job.job_id
    assert job.job_id.startswith("embd-")
    assert answer.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": VECTORS[0]},
            {"object": "embedding", "index": 1, "embedding": VECTORS[1]},
        ],
        "model": "fake",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_openais_client_gets_what_it_asks_for(rig: Rig) -> None:
    rig.load()
    # Without its strict validation, which refuses the base64 that it asks for by itself.
    client = OpenAI(base_url=f"{rig.url}/v1", api_key="x", max_retries=0)

    def ask(**fields: Any) -> list[float]:
        future = rig._threads.submit(lambda: client.embeddings.create(model="fake", **fields))
        give(rig.take_control(), VECTORS[0])
        vector: list[float] = future.result().data[0].embedding
        return vector

    assert ask(input="a") == VECTORS[0]
    assert ask(input="a", encoding_format="float") == VECTORS[0]
    assert ask(input=[1, 2], dimensions=3) == VECTORS[0]


def test_of_two_attempts_the_later_counts(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon(PATH, {"input": "a"})
    job = rig.take_control()
    job.started()
    job.chunk("", embedding=struct.pack("<1f", 5.0))
    give(job, [7.0])
    assert [entry["embedding"] for entry in future.result().json()["data"]] == [[7.0]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], [Prompt(token_ids=[1, 2])]),
        ([[1], [2, 3]], [Prompt(token_ids=[1]), Prompt(token_ids=[2, 3])]),
        (["x"] * 2048, [Prompt(text="x")] * 2048),
    ],
)
def test_an_input_has_the_shapes_of_a_prompt(rig: Rig, value: Any, expected: list[Prompt]) -> None:
    rig.load()
    future = rig.post_soon(PATH, {"input": value})
    job = rig.take_control()
    assert job.request.inputs == expected
    job.failed("context_length_exceeded", "too long", "input")
    assert future.result().status_code == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 1.5}, "dimensions"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_itself(
    rig: Rig, fields: dict[str, Any], param: str
) -> None:
    rig.load()
    headers = {"Content-Type": "application/json"}
    answer = rig.http.post(PATH, content=json.dumps(fields), headers=headers)
    assert answer.status_code == 400
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == param


def test_no_model_is_a_404(rig: Rig) -> None:
    assert rig.post(PATH, {"input": "a"}).status_code == 404


def test_one_in_the_background_can_be_read_later(rig: Rig) -> None:
    rig.load()
    answer = rig.post(PATH, {"input": "a"}, Prefer="respond-async")
    assert answer.status_code == 202
    give(rig.take_control(), VECTORS[0])
    job = rig.http.get(answer.headers["Location"]).json()
    assert (job["task"], job["status"]) == ("embed", "finished")
    assert job["result"]["data"][0]["embedding"] == VECTORS[0]
