"""Documents in the order of their likeness to a query, through HTTP, in both known shapes."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from jobs.contract.requests import EmbedRequest, Prompt
from jobs.contract.rerank import Rerank
from tests.integration.api_rig import Rig, check_error_shape

QUERY, DOCUMENTS = "q", ["across", "near", "far"]
VECTORS = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]]


def ask(rig: Rig, path: str = "/v1/rerank", **fields: Any) -> tuple[EmbedRequest, Any]:
    """The job that reached the worker, and the answer after its vectors."""
    future = rig.post_soon(path, {"query": QUERY, **fields})
    job = rig.take_control()
    job.started()
    for index, vector in enumerate(VECTORS):
        job.chunk("", choice=index, embedding=struct.pack("<2f", *vector))
    job.finished(completion_tokens=0)
    answer = future.result()
    assert rig.http.get(f"/v1/jobs/{job.job_id}").json()["result"] == answer.json()
    return job.request, answer.json()


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/reranking", "/v1/reranking"])
def test_the_likeliest_document_comes_first(rig: Rig, path: str) -> None:
    rig.load()
    request, answer = ask(rig, path, documents=DOCUMENTS)
    inputs = [Prompt(text=text) for text in (QUERY, *DOCUMENTS)]
    assert request == EmbedRequest(inputs, model="fake", rerank=Rerank())
    assert answer == {
        "object": "list",
        "model": "fake",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "results": [
            {"index": 1, "relevance_score": pytest.approx(0.8)},
            {"index": 0, "relevance_score": 0.0},
            {"index": 2, "relevance_score": -1.0},
        ],
    }


def test_documents_may_be_objects_and_come_back_when_asked_for(rig: Rig) -> None:
    rig.load()
    documents = [{"text": text, "title": "x"} for text in DOCUMENTS]
    _, answer = ask(rig, documents=documents, top_n=1, return_documents=True)
    assert answer["results"] == [
        {"index": 1, "relevance_score": pytest.approx(0.8), "document": {"text": "near"}}
    ]


def test_texts_ask_for_teis_shape(rig: Rig) -> None:
    rig.load()
    _, answer = ask(rig, texts=DOCUMENTS, top_n=2, return_text=True)
    assert answer == [
        {"index": 1, "score": pytest.approx(0.8), "text": "near"},
        {"index": 0, "score": 0.0, "text": "across"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": None}, "documents"),
        ({"query": "q", "documents": 123}, "documents"),
        ({"query": "q", "documents": ["a", ""]}, "documents"),
        ({"query": "q", "documents": ["a"], "texts": ["a"]}, "documents"),
        ({"query": "q", "documents": ["\ud800"]}, "documents"),
        ({"query": "q", "documents": ["a"] * 2048}, "documents"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_itself(
    rig: Rig, fields: dict[str, Any], param: str
) -> None:
    rig.load()
    headers = {"Content-Type": "application/json"}
    answer = rig.http.post("/v1/rerank", content=json.dumps(fields), headers=headers)
    assert answer.status_code == 400
    check_error_shape(answer.json())
    assert answer.json()["error"]["param"] == param


def test_documents_that_are_no_texts_are_refused(rig: Rig) -> None:
    rig.load()
    answer = rig.post("/v1/rerank", {"query": "q", "documents": [1, 2]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("documents[0]")


def test_a_model_without_vectors_is_a_400(rig: Rig) -> None:
    rig.load()
    future = rig.post_soon("/v1/rerank", {"query": "q", "documents": ["a"]})
    rig.take_control().failed("unsupported_parameter", "this model has no vectors", "model")
    assert future.result().status_code == 400
