"""Bodies of the generation routes: OpenAI's fields and the original server's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.dialects.shared_fields import MAX_TOKENS, NO_LIMIT, ReasoningFields, SharedFields
from api.web.base_schema import Body, Flag, PromptValue, Text, TokenLimit, integer


class FunctionBody(Body):
    """The function of a tool call; some clients send the arguments as an object."""

    name: Text
    arguments: Text | dict[str, Any] | None = None


class CustomCallBody(Body):
    """The call of a tool whose input is any text."""

    name: Text
    input: Text = ""


class ToolCallBody(Body):
    """OpenAI's object of that name; one of ``function`` and ``custom``, as ``type`` says."""

    id: Text | None = None
    type: Literal["function", "custom"] | None = None
    function: FunctionBody | None = None
    custom: CustomCallBody | None = None


class PartBody(Body):
    """One part of a message's content; only text can be read so far."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None


class MessageBody(Body):
    """One message of a chat; ``function`` and ``function_call`` are the older way to use tools."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | Annotated[list[PartBody], Field(fail_fast=True)] | None = None
    name: Text | None = None
    refusal: Text | None = None
    tool_calls: Annotated[list[ToolCallBody], Field(fail_fast=True)] | None = None
    function_call: FunctionBody | None = None
    tool_call_id: Text | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class StreamOptions(Body):
    """OpenAI's object of that name."""

    include_usage: Flag | None = None


class ToolFunction(Body):
    """OpenAI's object of that name."""

    name: Text


class ToolBody(Body):
    """The checked part of a tool's definition; the template sees the whole."""

    type: Literal["function"]
    function: ToolFunction


class NamedToolBody(Body):
    """A ``tool_choice`` that names the tool."""

    type: Literal["function"] = "function"
    function: ToolFunction


class GenerationBody(SharedFields):
    """What both generation routes take. Absent or null means: off, or the model's default.

    ``n_cmpl`` is llama-server's name of ``n``.
    """

    model: Text | None = None
    prompt: PromptValue = ""
    messages: Annotated[list[MessageBody], Field(fail_fast=True)] | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    n: Annotated[int, integer(1, 16)] | None = None
    n_cmpl: Annotated[int, integer(1, 16)] | None = None
    best_of: Annotated[int, integer(1, 16)] | None = None
    echo: Flag | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    continue_final_message: Flag | None = None
    add_generation_prompt: Flag | None = None
    add_special_tokens: Flag | None = None
    response_format: dict[str, Any] | None = None
    complete_text: Flag | None = None
    background: Flag | None = None
    user: Text | None = None
    metadata: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Text | dict[str, Any] | None = None
    parallel_tool_calls: Flag | None = None
    # Understood in order to be refused by name when they ask for something (tools.py).
    functions: list[Any] | None = None
    function_call: Any = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    # A number is how many, as older clients of mlx_lm.server have it.
    logprobs: Flag | Annotated[int, integer(-1, 20)] | None = None
    top_logprobs: Annotated[int, integer(0, 20)] | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions. With ``apply_chat_template`` or messages it is a chat.

    ``max_tokens`` 0 with ``echo`` only repeats the prompt, with its ``logprobs``. These as a flag,
    with ``top_logprobs``, are mlx_lm.server's.
    """

    max_tokens: Annotated[int, integer(NO_LIMIT, MAX_TOKENS)] | None = None
    logprobs: Flag | Annotated[int, integer(0, 20)] | None = None
    top_logprobs: Annotated[int, integer(0, 20)] | None = None
    suffix: Text | None = None
    apply_chat_template: Flag | None = None


class TokenCountBody(ReasoningFields):
    """POST /v1/internal/token-count: one of three ways to say the text."""

    model: Text | None = None
    prompt: Text | None = None
    text: Text | None = None
    messages: Annotated[list[MessageBody], Field(fail_fast=True)] | None = None
    tools: list[dict[str, Any]] | None = None
