"""Body and answers of /v1/rerank: Jina's and llama-server's, and those of TEI (``texts``)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.dialects.openai.embeddings.schema import EmbeddingsUsage
from api.dialects.order_fields import DeadlineField
from api.web.base_schema import Body, Count, Flag, Text

_MAX_DOCUMENTS = 2047  # with the query as many as embeddings take


class DocumentBody(Body):
    """A document, where a client sends more than its text."""

    text: Text


Documents = Annotated[list[Text | DocumentBody], Field(max_length=_MAX_DOCUMENTS, fail_fast=True)]


class RerankBody(DeadlineField):
    """POST /v1/rerank. ``texts`` instead of ``documents`` asks for TEI's shape of the answer."""

    model: Text | None = None
    query: Text
    documents: Documents | None = None
    texts: Documents | None = None
    top_n: Count | None = None
    return_documents: Flag | None = None
    return_text: Flag | None = None


class RankedDocument(BaseModel):
    """One document; ``relevance_score`` is the cosine of its angle to the query, -1 to 1."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankAnswer(BaseModel):
    """The documents, the likeliest first."""

    object: Literal["list"]
    model: str
    usage: EmbeddingsUsage
    results: list[RankedDocument]


class RankedText(BaseModel):
    """One document in TEI's shape."""

    index: int
    score: float
    text: str | None = None
