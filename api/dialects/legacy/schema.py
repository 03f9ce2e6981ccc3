"""Bodies and answers of older clients' routes: earlier versions of the original server's, and
text-generation-webui's, whose names it took over."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from api.dialects.openai.text.schema import TokenIds
from api.web.base_schema import Body, Text, integer


class EncodeBody(Body):
    """POST /v1/internal/encode."""

    text: Text


class DecodeBody(Body):
    """POST /v1/internal/decode."""

    tokens: Annotated[TokenIds, Field(fail_fast=True)]


class LogitsBody(Body):
    """POST /v1/internal/logits."""

    prompt: Annotated[str, Field(strict=True, min_length=1)]
    use_samplers: bool = False
    top_logits: Annotated[int, integer(1, 1000)] = 50


class CacheLimitBody(Body):
    """POST /v1/internal/model/cache_limit."""

    cache_limit: Annotated[int, integer(0, 2**50)]


class LatestJob(BaseModel):
    """GET /management/debug/latest: the newest generation of a model."""

    task_id: str
    task_category: str
    params: dict[str, Any]
    stream_generate: dict[str, Any]
