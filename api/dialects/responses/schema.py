"""Bodies and answers of /v1/responses, OpenAI's Responses API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from api.dialects.order_fields import ServiceTier
from api.dialects.sampling_fields import ResponseSamplingBody
from api.dialects.shared_fields import Effort
from api.web.base_schema import Body, Count, Flag, Text, TokenLimit, integer


def _check_input(value: Any) -> str | list[Any]:
    """One error for both forms; the items are read, and named, one by one (items.py)."""
    if not isinstance(value, str | list):
        raise ValueError("must be a string or a list of items")
    return value


_ITEMS: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
InputValue = Annotated[
    str | list[Any],
    PlainValidator(_check_input),
    WithJsonSchema({"anyOf": [{"type": "string"}, _ITEMS]}),
]


class TextBody(Body):
    """OpenAI's ``text``: the form of what the model writes."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningBody(Body):
    """OpenAI's ``reasoning``; thoughts are shown whole, so a summary is never made."""

    effort: Effort = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsePromptBody(Body):
    """What makes a prompt: all that is needed to count its tokens.

    Generation parameters of ours (``top_k``, ``seed``, ``stop``, …) are taken by the names that
    they have in a chat.
    """

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    input: InputValue | None = None
    instructions: Text | None = None
    previous_response_id: Text | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Text | dict[str, Any] | None = None
    parallel_tool_calls: Flag | None = None
    reasoning: ReasoningBody | None = None
    text: TextBody | None = None
    truncation: Literal["auto", "disabled"] | None = None
    # Refused by name when they ask for something: prompts and conversations kept elsewhere.
    prompt: dict[str, Any] | None = None
    conversation: Text | dict[str, Any] | None = None


class ResponseBody(ResponsePromptBody, ResponseSamplingBody):
    """POST /v1/responses.

    ``include`` adds log-probabilities; its other values, ``max_tool_calls`` (of OpenAI's own tools)
    and the cache's hints change nothing here. What does not fit is never truncated.
    """

    model_config = ConfigDict(extra="allow")

    max_output_tokens: TokenLimit | None = None
    max_tool_calls: Count | None = None
    top_logprobs: Annotated[int, integer(0, 20)] | None = None
    stream: Flag | None = None
    store: Flag | None = None
    background: Flag | None = None
    metadata: dict[str, Text] | None = None
    include: list[Text] | None = None
    user: Text | None = None
    prompt_cache_key: Text | None = None
    safety_identifier: Text | None = None
    service_tier: ServiceTier | None = None


class InputPart(Body):
    """One part of an item's content; only text can be read."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None


Content = Text | Annotated[list[InputPart], Field(fail_fast=True)]


class InputItem(Body):
    """What every item of ``input`` may have."""

    id: Text | None = None


class InputReference(Body):
    """An item of a stored response, by its id."""

    id: Text


class InputMessage(InputItem):
    """A message; it needs no ``type``."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class InputCall(InputItem):
    """A tool call that the model asked for earlier."""

    call_id: Text
    name: Text
    arguments: Text


class InputCallOutput(InputItem):
    """What that call gave."""

    call_id: Text
    output: Content


class InputReasoning(InputItem):
    """Earlier thoughts; encrypted ones have no content that could be read."""

    content: Annotated[list[InputPart], Field(fail_fast=True)] | None = None


class FunctionToolBody(Body):
    """The definition of a function, flat as the Responses API has it."""

    type: Literal["function"]
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = None


class ResponseErrorObject(BaseModel):
    """Why a response failed; ``type`` is our own stable code."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str
    param: str | None
    type: str


class ResponseObject(BaseModel):
    """A response; ``id`` is the job's. The fields of the request come back in it as well."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]
    error: ResponseErrorObject | None
    incomplete_details: dict[str, str] | None
    previous_response_id: str | None
    usage: dict[str, Any] | None


class DeletedResponse(BaseModel):
    """The answer to a DELETE."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class ItemList(BaseModel):
    """A page of the items that a response was made from."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class InputTokens(BaseModel):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
