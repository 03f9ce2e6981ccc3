"""A Messages body to what all dialects mean. Pure.

Errors keep the names that parameters have in a chat: ``api.dialects.anthropic.errors`` gives them
ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.dialects.anthropic.messages import to_messages
from api.dialects.anthropic.schema import MessagePromptBody, MessagesBody
from api.dialects.anthropic.tools import to_tool_fields
from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.openai.generation.reasoning import template_options_of
from api.dialects.openai.generation.tools import read_tools
from api.dialects.sampling_fields import same_value
from api.dialects.shared_fields import SharedFields
from api.dialects.shared_params import shared_params
from api.web.errors import checked, named_by
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
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
    if shared.n_probs:
        raise UnsupportedParameterError("n_probs: messages have no probabilities", "n_probs")
    tools, tool_use = read_tools(**to_tool_fields(body))
    messages = to_messages(body.system, body.messages)
    prompt = Prompt(
        messages=messages,
        tools=tools,
        template_options=_template_options(body, shared),
        is_continued=_is_begun(messages),
    )
    params = GenerationParams(
        prompts=[prompt],
        is_chat=True,
        tool_use=tool_use,
        reasoning_budget=_budget(body, shared),
        **shared_params(shared, own=body, response_format=_response_format(body), **_ends(body)),
    )
    return replace(params, stream=bool(body.stream)) if isinstance(body, MessagesBody) else params


def _is_begun(messages: list[Message]) -> bool:
    """Whether the conversation ends with the beginning of the answer, which then goes on."""
    last = messages[-1] if messages else None
    return (
        last is not None and last.role == "assistant" and bool(last.content) and not last.tool_calls
    )


def _budget(body: MessagePromptBody, shared: SharedFields) -> int | None:
    """How much it thinks is up to the model, as with ``adaptive``, unless there is a budget."""
    given = body.thinking if body.thinking and body.thinking.type == "enabled" else None
    own = {"thinking.budget_tokens": given.budget_tokens if given else None}
    return same_value({**own, "thinking_budget": shared.budget})


def _template_options(body: MessagePromptBody, shared: SharedFields) -> dict[str, Any] | None:
    """``between_tools`` is off; it is about what Anthropic's models tell between their calls."""
    is_on = body.thinking.type in ("enabled", "adaptive") if body.thinking else None
    effort = body.output_config.effort if body.output_config else None
    switches = {"thinking": is_on, "enable_thinking": shared.enable_thinking}
    efforts = {"output_config.effort": effort, "reasoning_effort": shared.reasoning_effort}
    same = {"enable_thinking": same_value(switches), "reasoning_effort": same_value(efforts)}
    return template_options_of(shared.model_copy(update=same))


def _response_format(body: MessagePromptBody) -> dict[str, Any] | None:
    config = body.output_config
    given = (config.format if config else None) or body.output_format
    return {"type": "json_schema", "schema": given.schema_} if given else None


def _ends(body: MessagePromptBody) -> dict[str, Any]:
    if not isinstance(body, MessagesBody):
        return {}
    limits = {"max_tokens": body.max_tokens}
    return {"limits": limits, "stops": {"stop_sequences": body.stop_sequences}}


def _refuse_unsupported(body: MessagePromptBody) -> None:
    for name in ("mcp_servers", "container", "thread"):
        if getattr(body, name):
            message = f"{name}: nothing of that kind runs or is kept here"
            raise UnsupportedParameterError(message, name)
