"""What a response repeats of its request. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.responses.items import Item
from api.dialects.responses.schema import FunctionToolBody, ResponseBody
from api.dialects.responses.tools import function_tools
from jobs.contract.requests import GenerateRequest
from jobs.storage.stored_responses import StoredResponse


def to_record(
    response_id: str,
    created_at: int,
    body: ResponseBody,
    job: GenerateRequest,
    items: list[Item],
    tier: str = "default",
) -> StoredResponse:
    """The response that ``job`` will fill. ``tier`` is the service tier that the job gets."""
    return StoredResponse(
        response_id=response_id,
        created_at=created_at,
        model=job.model,
        echo=_echo(body, job, tier),
        items=items,
        is_background=bool(body.background),
    )


def _echo(body: ResponseBody, job: GenerateRequest, tier: str) -> dict[str, Any]:
    """Defaults as they hold, and the tools that the model can really call."""
    text, reasoning = body.text, body.reasoning
    return {
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": tier,
        "store": body.store is not False,
        "temperature": job.sampling.temperature,
        "text": {
            "format": (text.format if text else None) or {"type": "text"},
            "verbosity": (text.verbosity if text else None) or "medium",
        },
        "tool_choice": body.tool_choice or "auto",
        "tools": [_tool(tool) for tool in function_tools(body)],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _tool(tool: FunctionToolBody) -> dict[str, Any]:
    return {**tool.model_dump(), "parameters": tool.parameters or {}, "strict": bool(tool.strict)}
