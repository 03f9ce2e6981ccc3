"""A Messages body to a chat's, where defaults and checks live. Pure.

Errors keep the chat's names of parameters: ``api.dialects.anthropic.errors`` gives them ours.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from api.dialects.anthropic.messages import to_messages
from api.dialects.anthropic.schema import (
    MessagePromptBody,
    MessagesBody,
    OutputConfigBody,
    OutputFormatBody,
    ThinkingBody,
)
from api.dialects.anthropic.tools import to_tool_fields
from api.dialects.openai.generation.schema import ChatBody
from api.dialects.openai.generation.translate import to_generate_request
from api.web.errors import describe_validation
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt

_TAKEN_AS_THEY_ARE = frozenset(
    """
    adapter_name chat_template_kwargs choice frequency_penalty grammar ignore_eos logit_bias min_p
    mirostat_eta mirostat_mode mirostat_tau on_worker_loss presence_penalty regex repeat_penalty
    repet_penalty repetition_context_size repetition_penalty seed typical_p
    """.split()
)


def to_job(body: MessagesBody, defaults: GenerationDefaults, model_name: str) -> GenerateRequest:
    """The job that answers the body; ``InvalidRequestError`` names the parameter at fault."""
    chat = _to_chat(body)
    if chat.messages and chat.messages[-1].role == "assistant" and not chat.continue_final_message:
        message = "messages: the assistant's last turn has calls without results, or no text"
        raise InvalidRequestError(message, "messages")
    return to_generate_request(chat, defaults, model_name)


def to_prompt(body: MessagePromptBody, model_name: str) -> Prompt:
    """What the model would read of the body."""
    return to_generate_request(_to_chat(body), GenerationDefaults(), model_name).prompts[0]


def _to_chat(body: MessagePromptBody) -> ChatBody:
    _refuse_unsupported(body)
    extra = body.model_extra or {}
    messages = to_messages(body.system, body.messages)
    fields = {
        **{name: extra[name] for name in sorted(_TAKEN_AS_THEY_ARE & extra.keys())},
        "model": body.model,
        "messages": messages,
        "continue_final_message": _is_begun(messages) or None,
        **to_tool_fields(body),
        **_thinking_fields(body.thinking),
        **_output_fields(body.output_config or OutputConfigBody(), body.output_format),
    }
    if isinstance(body, MessagesBody):
        fields |= {
            "max_tokens": body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stop": body.stop_sequences,
            "stream": body.stream,
        }
    return _checked({name: value for name, value in fields.items() if value is not None})


def _is_begun(messages: list[dict[str, Any]]) -> bool:
    """Whether the conversation ends with the beginning of the answer, which then goes on."""
    last = messages[-1] if messages else {}
    is_text = bool(last.get("content")) and not last.get("tool_calls")
    return last.get("role") == "assistant" and is_text


def _checked(fields: dict[str, Any]) -> ChatBody:
    try:
        return ChatBody.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        described = describe_validation([{**first, "loc": ("body", *first["loc"])}])
        raise InvalidRequestError(*described) from None


def _thinking_fields(thinking: ThinkingBody | None) -> dict[str, Any]:
    """How much it thinks is up to the model, as with ``adaptive``, unless there is a budget.

    ``between_tools`` is off as well; it is about what Anthropic's models tell between their calls.
    """
    if thinking is None:
        return {}
    is_enabled = thinking.type in ("enabled", "adaptive")
    budget = thinking.budget_tokens if thinking.type == "enabled" else None
    return {"enable_thinking": is_enabled, "thinking_budget": budget}


def _output_fields(config: OutputConfigBody, older: OutputFormatBody | None) -> dict[str, Any]:
    given = config.format or older
    if given is None:
        return {"reasoning_effort": config.effort}
    schema = {"name": "output", "schema": given.schema_}
    response_format = {"type": "json_schema", "json_schema": schema}
    return {"reasoning_effort": config.effort, "response_format": response_format}


def _refuse_unsupported(body: MessagePromptBody) -> None:
    for name in ("mcp_servers", "container", "thread"):
        if getattr(body, name):
            message = f"{name}: nothing of that kind runs or is kept here"
            raise UnsupportedParameterError(message, name)
