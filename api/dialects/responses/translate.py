"""A Responses body to what all dialects mean; errors get our names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.openai.generation.grammars import forms_of, to_grammar
from api.dialects.openai.generation.reasoning import to_template_options
from api.dialects.openai.generation.tools import read_tools
from api.dialects.refused_fields import refuse_fields
from api.dialects.responses.items import Item
from api.dialects.responses.messages import to_messages
from api.dialects.responses.schema import ExtraFields, ResponseBody, ResponsePromptBody, TextBody
from api.dialects.responses.tools import to_tool_fields
from api.dialects.sampling_fields import OURS
from api.dialects.shared_fields import end_params
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
    extra = checked(ExtraFields, given)
    refuse_fields(extra)
    tools, tool_use = read_tools(**to_tool_fields(body))
    options = to_template_options(
        enable_thinking=extra.enable_thinking,
        think=extra.think,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        thinking_budget=extra.thinking_budget,
        chat_template_kwargs=extra.chat_template_kwargs,
    )
    messages = to_messages(body.instructions, items)
    params = GenerationParams(
        prompts=[Prompt(messages=messages, tools=tools, template_options=options)],
        is_chat=True,
        sampling={**OURS.read(extra), **OURS.read(body)},
        stop=extra.stop or [],
        adapter=extra.adapter,
        grammar=to_grammar(response_format=_response_format(body.text), **forms_of(extra)),
        tool_use=tool_use,
        reasoning_budget=extra.thinking_budget,
        on_worker_loss=extra.on_worker_loss,
        **_ends(body, extra),
    )
    if not isinstance(body, ResponseBody):
        return params
    return replace(
        params,
        stream=bool(body.stream),
        num_logprobs=_num_logprobs(body),
    )


def _ends(body: ResponsePromptBody, extra: ExtraFields) -> dict[str, Any]:
    limit = body.max_output_tokens if isinstance(body, ResponseBody) else None
    return end_params(extra, max_output_tokens=limit)


def _num_logprobs(body: ResponseBody) -> int | None:
    """Asked for by ``include``, or by a number of alternatives."""
    is_asked_for = body.top_logprobs or _LOGPROBS in (body.include or ())
    return (body.top_logprobs or 0) if is_asked_for else None


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
