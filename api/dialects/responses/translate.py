"""A Responses body to a chat's, where defaults and checks live; errors get our names. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from api.dialects.openai.generation.schema import ChatBody
from api.dialects.openai.generation.translate import to_generate_request
from api.dialects.responses.items import Item, checked
from api.dialects.responses.messages import to_messages
from api.dialects.responses.schema import ResponseBody, ResponsePromptBody, TextBody
from api.dialects.responses.tools import to_tool_fields
from jobs.contract.errors import ErrorInfo, InvalidRequestError, JobError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults

_FIELDS = {
    "messages": "input",
    "prompt": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
"""A chat's name of a parameter -> its name here."""

_LOGPROBS = "message.output_text.logprobs"
_TAKEN_AS_THEY_ARE = frozenset(
    """
    adapter_name chat_template_kwargs choice enable_thinking frequency_penalty grammar ignore_eos
    logit_bias min_p mirostat_eta mirostat_mode mirostat_tau on_worker_loss presence_penalty regex
    repeat_penalty repet_penalty repetition_context_size repetition_penalty seed stop
    thinking_budget top_k typical_p
    """.split()
)


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
    try:
        return to_generate_request(_to_chat(body, items), defaults, model_name)
    except JobError as error:
        raise renamed(error) from None


def renamed(error: JobError) -> JobError:
    """The same error, with the name that its parameter has in a Responses body."""
    name = re.match(r"\w*", error.param or "")
    ours = _FIELDS.get(name[0]) if name else None
    if name is None or ours is None:
        return error
    rest = (error.param or "")[name.end() :].replace(".json_schema", "", 1)
    param = ours if ours == "input" else ours + rest
    message = re.sub(rf"\b{name[0]}\b", ours, error.message, count=1)
    return JobError.from_info(ErrorInfo(error.code, message, param))


def _to_chat(body: ResponsePromptBody, items: Sequence[Item]) -> ChatBody:
    extra = body.model_extra or {}
    fields = {
        **{name: extra[name] for name in sorted(_TAKEN_AS_THEY_ARE & extra.keys())},
        "model": body.model,
        "messages": to_messages(body.instructions, items),
        "response_format": _response_format(body.text),
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        **to_tool_fields(body),
    }
    if isinstance(body, ResponseBody):
        fields |= {
            "max_completion_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "stream": body.stream,
            **_logprobs(body),
        }
    given = {name: value for name, value in fields.items() if value is not None}
    return checked(ChatBody, given, ())


def _logprobs(body: ResponseBody) -> dict[str, Any]:
    """Asked for by ``include``, or by a number of alternatives."""
    if not body.top_logprobs and _LOGPROBS not in (body.include or ()):
        return {}
    return {"logprobs": True, "top_logprobs": body.top_logprobs}


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
