"""Documents in the order of their likeness to a query, by the angle between vectors. Pure."""

from __future__ import annotations

from operator import mul
from typing import Any

from api.dialects.generation_params import checked_text
from api.dialects.openai.rerank.schema import RerankBody
from jobs.contract.errors import InvalidRequestError
from jobs.contract.events import Usage
from jobs.contract.requests import EmbedRequest, Prompt
from jobs.contract.rerank import Rerank


def to_rerank_request(body: RerankBody, model_name: str) -> EmbedRequest:
    """A job that embeds the query and then the documents."""
    if bool(body.documents) == bool(body.texts):
        raise InvalidRequestError("documents are required: one or more texts", "documents")
    documents = [d if isinstance(d, str) else d.text for d in body.documents or body.texts or ()]
    if not body.query or not all(documents):
        param = "documents" if body.query else "query"
        raise InvalidRequestError(f"{param}: a text must not be empty", param)
    request = EmbedRequest(
        inputs=[Prompt(text=text) for text in (body.query, *documents)],
        model=model_name,
        rerank=Rerank(
            top_n=body.top_n,
            has_documents=bool(body.return_documents or body.return_text),
            shape="tei" if body.texts else "jina",
        ),
    )
    return checked_text(request, body)


def rerank_answer(
    request: EmbedRequest, view: Rerank, vectors: list[list[float]], usage: Usage
) -> Any:
    """The body of the answer: the likeliest documents first. ``vectors`` have length 1."""
    query, *documents = vectors
    scores = [sum(map(mul, query, document)) for document in documents]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: view.top_n]
    texts = [prompt.text for prompt in request.inputs[1:]]
    if view.shape == "tei":
        return [
            {"index": index, "score": scores[index]}
            | ({"text": texts[index]} if view.has_documents else {})
            for index in order
        ]
    return {
        "object": "list",
        "model": request.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        "results": [
            {"index": index, "relevance_score": scores[index]}
            | ({"document": {"text": texts[index]}} if view.has_documents else {})
            for index in order
        ],
    }
