"""Bodies and answers of the tokenizer's routes: llama-server's shapes, and whose are close."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from api.dialects.openai.generation.schema import MessageBody
from api.dialects.shared_fields import ReasoningFields
from api.web.base_schema import Body, Flag, Text

TokenIds = list[Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]]


class TokenizeBody(Body):
    """POST /v1/tokenize. ``content``, ``prompt`` and ``text`` are one field."""

    model: Text | None = None
    content: Text | None = None
    prompt: Text | None = None
    text: Text | None = None
    add_special: Flag = False
    parse_special: Flag = True
    with_pieces: Flag = False


class TokenPiece(BaseModel):
    """A token and its text; the bytes where they are no whole characters."""

    id: int
    piece: str | list[int]


class TokensAnswer(BaseModel):
    """The tokens of a text, and how many."""

    tokens: list[int] | list[TokenPiece]
    length: int


class DetokenizeBody(Body):
    """POST /v1/detokenize."""

    model: Text | None = None
    tokens: Annotated[TokenIds, Field(fail_fast=True)]


class ContentAnswer(BaseModel):
    """The text of tokens."""

    content: str


class ApplyTemplateBody(ReasoningFields):
    """POST /v1/apply-template: ``prompt`` stands for one user message."""

    model: Text | None = None
    messages: Annotated[list[MessageBody], Field(fail_fast=True)] | None = None
    prompt: Text | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: Flag = True


class PromptAnswer(BaseModel):
    """The text that the model would read."""

    prompt: str
