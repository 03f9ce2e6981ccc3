"""A Messages body to what all dialects mean. Pure.

Errors keep the names that parameters have in a chat: ``api.dialects.anthropic.errors`` gives them
ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.dialects.anthropic.messages import to_messages
from api.dialects.anthropic.schema import (
    MessagePromptBody,
    MessagesBody,
    ThinkingBody,
)
from api.dialects.anthropic.tools import to_tool_fields
from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.openai.generation.grammars import forms_of, to_grammar
from api.dialects.openai.generation.reasoning import to_template_options
from api.dialects.openai.generation.tools import read_tools
from api.dialects.refused_fields import refuse_fields
from api.dialects.sampling_fields import OURS
from api.dialects.shared_fields import SharedFields, end_params
from api.web.errors import checked, named_by
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Message, Prompt

NAMES = {
    "prompt": "messages",
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
}


def to_job(body: MessagesBody, defaults: GenerationDefaults, model_name: str) -> GenerateRequest:
    """The job that answers the body; ``InvalidRequestError`` names the parameter at fault."""
    params = _to_params(body)
    chat = params.prompts[0]
    if chat.messages and chat.messages[-1].role == "assistant" and not chat.is_continued:
        message = "messages: the assistant's last turn has calls without results, or no text"
        raise InvalidRequestError(message, "messages")
    return checked_text(build_request(params, defaults, model_name), body)


def to_prompt(body: MessagePromptBody, model_name: str) -> Prompt:
    """What the model would read of the body."""
    request = build_request(_to_params(body), GenerationDefaults(), model_name)
    return checked_text(request, body).prompts[0]


@named_by(NAMES)
def _to_params(body: MessagePromptBody) -> GenerationParams:
    _refuse_unsupported(body)
    extra = {name: value for name, value in (body.model_extra or {}).items() if value is not None}
    shared = checked(SharedFields, extra)
    refuse_fields(shared)
    tools, tool_use = read_tools(**to_tool_fields(body))
    messages = to_messages(body.system, body.messages)
    prompt = Prompt(
        messages=messages,
        tools=tools,
        template_options=_template_options(body, shared.chat_template_kwargs),
        is_continued=_is_begun(messages),
    )
    params = GenerationParams(
        prompts=[prompt],
        is_chat=True,
        sampling={**OURS.read(shared), **OURS.read(body)},
        adapter=shared.adapter,
        grammar=_grammar(body, shared),
        tool_use=tool_use,
        reasoning_budget=_budget(body.thinking),
        on_worker_loss=shared.on_worker_loss,
        **_ends(body, shared),
    )
    if not isinstance(body, MessagesBody):
        return params
    return replace(
        params,
        stop=body.stop_sequences or [],
        stream=bool(body.stream),
    )


def _is_begun(messages: list[Message]) -> bool:
    """Whether the conversation ends with the beginning of the answer, which then goes on."""
    last = messages[-1] if messages else None
    return (
        last is not None and last.role == "assistant" and bool(last.content) and not last.tool_calls
    )


def _budget(thinking: ThinkingBody | None) -> int | None:
    """How much it thinks is up to the model, as with ``adaptive``, unless there is a budget."""
    is_enabled = thinking is not None and thinking.type == "enabled"
    return thinking.budget_tokens if thinking is not None and is_enabled else None


def _template_options(
    body: MessagePromptBody, kwargs: dict[str, Any] | None
) -> dict[str, Any] | None:
    """``between_tools`` is off; it is about what Anthropic's models tell between their calls."""
    thinking, config = body.thinking, body.output_config
    return to_template_options(
        enable_thinking=None if thinking is None else thinking.type in ("enabled", "adaptive"),
        reasoning_effort=config.effort if config else None,
        thinking_budget=_budget(thinking),
        chat_template_kwargs=kwargs,
    )


def _grammar(body: MessagePromptBody, shared: SharedFields) -> Grammar | None:
    config = body.output_config
    given = (config.format if config else None) or body.output_format
    form = {"type": "json_schema", "schema": given.schema_} if given else None
    return to_grammar(response_format=form, **forms_of(shared))


def _ends(body: MessagePromptBody, shared: SharedFields) -> dict[str, Any]:
    limit = body.max_tokens if isinstance(body, MessagesBody) else None
    return end_params(shared, max_tokens=limit)


def _refuse_unsupported(body: MessagePromptBody) -> None:
    for name in ("mcp_servers", "container", "thread"):
        if getattr(body, name):
            message = f"{name}: nothing of that kind runs or is kept here"
            raise UnsupportedParameterError(message, name)
