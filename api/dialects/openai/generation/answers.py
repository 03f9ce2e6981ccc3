"""Events of a finished job to OpenAI's whole answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.dialects.openai.generation.calls import call_object, reasoning_fields
from api.dialects.openai.generation.logprobs import TextOffsets, chat_logprobs
from api.dialects.openai.generation.usage import timings_object, usage_object
from jobs.contract.events import CalledTool, Event, EventKind, TokenLogprob, Usage, add_calls
from jobs.contract.requests import GenerateRequest


class _Choice:
    """One choice as its chunks build it."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[CalledTool] = []
        self.logprobs: list[TokenLogprob] | None = None
        self.finish_reason = "stop"

    def take(self, event: Event) -> None:
        self.text.append(event.text)
        self.reasoning.append(event.reasoning)
        add_calls(self.calls, event.tool_calls)
        tokens = event.prompt if event.prompt is not None else event.logprobs
        if tokens is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += tokens
        if event.finish_reason is not None:
            self.finish_reason = event.finish_reason


def whole_answer(
    job_id: str,
    created: int,
    request: GenerateRequest,
    events: Iterable[Event],
    tier: str = "default",
) -> dict[str, Any]:
    """The body of a non-streamed answer. ``events`` are all of the job's, up to ``finished``.

    ``tier`` is the service tier that the job had.
    """
    choices = [_Choice() for _ in range(len(request.prompts) * request.num_choices)]
    last: Event | None = None
    for event in events:
        last = event
        if event.kind is EventKind.CHUNK:
            choices[event.choice].take(event)
    usage, timings = (last.usage or Usage(), last.timings) if last else (Usage(), None)
    is_chat = request.api == "chat"
    show = _chat_choice if is_chat else _text_choice
    return {
        "id": job_id,
        "object": "chat.completion" if is_chat else "text_completion",
        "created": created,
        "model": request.model,
        "service_tier": tier,
        "choices": [show(index, choice, request) for index, choice in enumerate(choices)],
        "usage": usage_object(usage, timings),
        "timings": timings_object(timings, usage),
    }


def _chat_choice(index: int, choice: _Choice, request: GenerateRequest) -> dict[str, Any]:
    return {
        "index": index,
        "message": _message(choice),
        "logprobs": chat_logprobs(choice.logprobs),
        "finish_reason": choice.finish_reason,
    }


def _message(choice: _Choice) -> dict[str, Any]:
    content = "".join(choice.text)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.calls and not content else content,
        "refusal": None,
    }
    if reasoning := "".join(choice.reasoning):
        message |= reasoning_fields(reasoning)
    if choice.calls:
        message["tool_calls"] = [call_object(call) for call in choice.calls]
    return message


def _text_choice(index: int, choice: _Choice, request: GenerateRequest) -> dict[str, Any]:
    is_echoed_here = request.echo and not request.is_prompt_scored
    prompt = request.prompts[index // request.num_choices]
    return {
        "index": index,
        "text": ((prompt.text or "") if is_echoed_here else "") + "".join(choice.text),
        "logprobs": TextOffsets().add(choice.logprobs),
        "finish_reason": choice.finish_reason,
    }
