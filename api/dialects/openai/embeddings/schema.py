"""Body and answer of /v1/embeddings: OpenAI's."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, PlainValidator, WithJsonSchema

from api.dialects.order_fields import DeadlineField
from api.dialects.shared_fields import KeepFields
from api.web.base_schema import PROMPT_SCHEMA, Count, Text, check_prompt

_MAX_INPUTS = 2048  # OpenAI's limit
# Voyage's words, Cohere's and NVIDIA's.
InputType = Literal["query", "document", "search_query", "search_document", "passage"]

InputValue = Annotated[
    str | list[Any],
    PlainValidator(partial(check_prompt, max_prompts=_MAX_INPUTS)),
    WithJsonSchema(PROMPT_SCHEMA),
]


class EmbeddingsBody(KeepFields, DeadlineField):
    """POST /v1/embeddings."""

    input: InputValue
    model: Text | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    input_type: InputType | None = None
    prompt_name: Text | None = None
    user: Text | None = None


class EmbeddingEntry(BaseModel):
    """The vector of one input: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Token counts, summed over the inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """One vector of length 1 per input, in the order of the inputs.

    ``embeddings`` is ``data`` once more, where no model was named: as the original server had it.
    """

    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: EmbeddingsUsage
    embeddings: list[EmbeddingEntry] | None = None
