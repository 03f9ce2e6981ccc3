"""Bodies of /v1/messages, Anthropic's Messages API: what clients send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter

from api.dialects.order_fields import ServiceTier
from api.web.base_schema import (
    Body,
    Count,
    Flag,
    Probability,
    Text,
    TokenLimit,
    check_stop,
    integer,
)


class TextBlock(Body):
    """Text. What asks for caching or citations changes nothing here."""

    type: Literal["text"]
    text: Text


def _read_text_blocks(value: Any) -> list[TextBlock]:
    """Text is short for one block; ``None``, where it is allowed, for no block."""
    if isinstance(value, str):
        return [TextBlock(type="text", text=value)]
    return _TEXT_BLOCKS.validate_python([] if value is None else value)


def _read_text_block(value: Any) -> TextBlock:
    return TextBlock.model_validate(_checked_type(value, frozenset({"text"})))


def _checked_type(value: Any, known: frozenset[str]) -> dict[str, Any]:
    """The block, if we can read its type; images and documents end here, by name."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("a block is an object with a type")
    if value["type"] not in known:
        listed = ", ".join(sorted(known))
        raise ValueError(f"blocks of type {value['type'][:40]!r} are not supported, only {listed}")
    return value


_TEXT_BLOCKS: TypeAdapter[list[TextBlock]] = TypeAdapter(
    Annotated[list[Annotated[TextBlock, PlainValidator(_read_text_block)]], Field(fail_fast=True)]
)
TextContent = Annotated[
    list[TextBlock],
    PlainValidator(_read_text_blocks, json_schema_input_type=Text | list[TextBlock]),
]


class ToolUseBlock(Body):
    """A tool call that the model asked for earlier."""

    type: Literal["tool_use"]
    id: Text
    name: Text
    input: dict[str, Any]


class ToolResultBlock(Body):
    """What that call gave."""

    type: Literal["tool_result"]
    tool_use_id: Text
    content: TextContent = Field(default_factory=list)
    is_error: Flag | None = None


class ThinkingBlock(Body):
    """Earlier thoughts; the model's template knows which of them it still needs."""

    type: Literal["thinking"]
    thinking: Text = ""
    signature: Text = ""


class RedactedThinkingBlock(Body):
    """The same, unreadable: left out."""

    type: Literal["redacted_thinking"]
    data: Text = ""


class ServerBlock(Body):
    """What a tool of Anthropic's did, or something else that is kept there: left out."""

    type: Text


Block = (
    TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock | ServerBlock
)
_SERVER_BLOCKS = frozenset(
    "bash_code_execution_tool_result code_execution_tool_result compaction container_upload "
    "fallback mcp_tool_result mcp_tool_use server_tool_use "
    "text_editor_code_execution_tool_result tool_search_tool_result web_fetch_tool_result "
    "web_search_tool_result".split()
)
_KINDS: dict[str, type[Block]] = {
    "text": TextBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedThinkingBlock,
    **dict.fromkeys(_SERVER_BLOCKS, ServerBlock),
}


def _read_blocks(value: Any) -> list[Block]:
    if isinstance(value, str):
        return [TextBlock(type="text", text=value)]
    return _BLOCKS.validate_python(value)


def _read_block(value: Any) -> Block:
    """By its type, so that an error is about that one kind of block."""
    block = _checked_type(value, frozenset(_KINDS))
    return _KINDS[block["type"]].model_validate(block)


_BLOCKS: TypeAdapter[list[Block]] = TypeAdapter(
    Annotated[list[Annotated[Block, PlainValidator(_read_block)]], Field(fail_fast=True)]
)


class InputMessage(Body):
    """One turn. Later system messages are Anthropic's too: what holds from there on."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        list[Block], PlainValidator(_read_blocks, json_schema_input_type=Text | list[Block])
    ]


class ClientToolBody(Body):
    """A tool of the client's. Those of a type of their own are Anthropic's, and left out."""

    type: Text | None = None
    name: Text | None = None
    description: Text | None = None
    input_schema: dict[str, Any] | None = None
    strict: Flag | None = None


class ToolChoiceBody(Body):
    """Whether tools may or have to be called; ``name`` belongs to type ``tool``."""

    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    disable_parallel_tool_use: Flag | None = None


class ThinkingBody(Body):
    """Whether the model thinks first. Without this object, that is up to its template."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Count | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormatBody(Body):
    """The JSON schema that the text has to match."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfigBody(Body):
    """How much effort, and in which form."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormatBody | None = None


class MessagePromptBody(Body):
    """POST /v1/messages/count_tokens: what makes a prompt.

    Generation parameters of ours (``seed``, ``min_p``, ``grammar``, …) are taken by the names that
    they have in a chat.
    """

    model_config = ConfigDict(extra="allow")

    model: Text | None = None
    messages: Annotated[list[InputMessage], Field(min_length=1, fail_fast=True)]
    system: TextContent = Field(default_factory=list)
    tools: Annotated[list[ClientToolBody], Field(fail_fast=True)] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfigBody | None = None
    # The format's place in older clients.
    output_format: OutputFormatBody | None = None
    # Refused by name when they ask for something: what runs, or is kept, at Anthropic.
    mcp_servers: list[Any] | None = None
    container: Any = None
    thread: Any = None


class MessagesBody(MessagePromptBody):
    """POST /v1/messages."""

    max_tokens: TokenLimit
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, integer(-1, 1_000_000)] | None = None
    stop_sequences: Annotated[list[Text], AfterValidator(check_stop)] | None = None
    stream: Flag | None = None
    metadata: dict[str, Any] | None = None
    service_tier: ServiceTier | None = None
    background: Flag | None = None
