"""A Responses body to what all dialects mean; errors get our names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.openai.generation.reasoning import template_options_of
from api.dialects.openai.generation.tools import read_tools
from api.dialects.responses.items import Item
from api.dialects.responses.messages import to_messages
from api.dialects.responses.schema import ResponseBody, ResponsePromptBody, TextBody
from api.dialects.responses.tools import to_tool_fields
from api.dialects.sampling_fields import same_value
from api.dialects.shared_fields import SharedFields
from api.dialects.shared_params import shared_params
from api.web.errors import checked, named_by
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt

NAMES = {
    "messages": "input",
    "prompt": "input",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
}
"""What all dialects call a parameter -> its name here, where it is another one."""

_LOGPROBS = "message.output_text.logprobs"


def to_job(
    body: ResponsePromptBody,
    items: Sequence[Item],
    defaults: GenerationDefaults,
    model_name: str,
) -> GenerateRequest:
    """The job that answers ``items``; ``InvalidRequestError`` names the field of ``body``."""
    _refuse_unsupported(body)
    if not items:
        raise InvalidRequestError("input is required and must not be empty", "input")
    with named_by(NAMES):
        request = build_request(_to_params(body, items), defaults, model_name)
    return checked_text(request, body)


def _to_params(body: ResponsePromptBody, items: Sequence[Item]) -> GenerationParams:
    given = {name: value for name, value in (body.model_extra or {}).items() if value is not None}
    extra = checked(SharedFields, given)
    tools, tool_use = read_tools(**to_tool_fields(body))
    messages, options = to_messages(body.instructions, items), _template_options(body, extra)
    params = GenerationParams(
        prompts=[Prompt(messages=messages, tools=tools, template_options=options)],
        is_chat=True,
        tool_use=tool_use,
        reasoning_budget=extra.budget,
        num_logprobs=_num_logprobs(body, extra),
        **shared_params(
            extra, own=body, limits=_limits(body), response_format=_response_format(body.text)
        ),
    )
    return replace(params, stream=bool(body.stream)) if isinstance(body, ResponseBody) else params


def _template_options(body: ResponsePromptBody, extra: SharedFields) -> dict[str, Any] | None:
    effort = body.reasoning.effort if body.reasoning else None
    efforts = {"reasoning.effort": effort, "reasoning_effort": extra.reasoning_effort}
    same = {"reasoning_effort": same_value(efforts)}
    return template_options_of(extra.model_copy(update=same))


def _limits(body: ResponsePromptBody) -> dict[str, int | None]:
    return {"max_output_tokens": body.max_output_tokens} if isinstance(body, ResponseBody) else {}


def _num_logprobs(body: ResponsePromptBody, extra: SharedFields) -> int | None:
    """Asked for by ``include``, or by a number of alternatives."""
    if not isinstance(body, ResponseBody):
        return None
    number = same_value(
        {"top_logprobs": body.top_logprobs or None, "n_probs": extra.n_probs or None}
    )
    return number or (0 if _LOGPROBS in (body.include or ()) else None)


def _response_format(text: TextBody | None) -> dict[str, Any] | None:
    """A chat keeps the schema and its name one level deeper."""
    given = text.format if text else None
    if given is None or given.get("type") != "json_schema":
        return given
    schema = {name: value for name, value in given.items() if name != "type"}
    return {"type": "json_schema", "json_schema": schema}


def _refuse_unsupported(body: ResponsePromptBody) -> None:
    for name in ("prompt", "conversation"):
        if getattr(body, name) is not None:
            raise UnsupportedParameterError(f"{name}: nothing of that kind is kept here", name)
