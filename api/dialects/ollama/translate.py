"""ollama's bodies to what all dialects mean. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.ollama.messages import is_begun, read_messages, refuse_images
from api.dialects.ollama.schema import (
    OllamaBody,
    OllamaChatBody,
    OllamaEmbedBody,
    OllamaTextBody,
)
from api.dialects.openai.generation.reasoning import template_options_of
from api.dialects.openai.generation.tools import Tools, read_tools
from api.dialects.sampling_fields import same_value
from api.dialects.shared_params import shared_params
from api.execution.shapes import Shape
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import (
    EmbedRequest,
    GenerateRequest,
    GenerationDefaults,
    Message,
    Prompt,
    View,
)


def to_chat_job(
    body: OllamaChatBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that answers a chat; ``InvalidRequestError`` names the parameter at fault."""
    messages = read_messages(body.messages or ())
    tools, tool_use = read_tools(_typed(body.tools))
    prompt = Prompt(
        messages=messages,
        tools=tools,
        template_options=template_options_of(body),
        is_continued=is_begun(messages),
    )
    params = GenerationParams(
        prompts=[prompt],
        is_chat=True,
        tool_use=tool_use,
        view=View(Shape.OLLAMA_CHAT),
        **_shared(body),
    )
    return checked_text(build_request(params, defaults, model_name), body)


def to_text_job(
    body: OllamaTextBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that continues or answers a prompt; errors as of ``to_chat_job``."""
    _refuse_unsupported(body)
    prompt = _prompt(body)
    params = GenerationParams(
        prompts=[prompt],
        is_chat=prompt.messages is not None,
        view=View(Shape.OLLAMA_TEXT),
        **_shared(body),
    )
    return checked_text(build_request(params, defaults, model_name), body)


def to_embed_job(body: OllamaEmbedBody, texts: list[str], model_name: str) -> EmbedRequest:
    """One vector for each text; none may be empty."""
    if not all(texts):
        raise InvalidRequestError("input: a text must not be empty", "input")
    request = EmbedRequest(
        inputs=[Prompt(text=text) for text in texts],
        dimensions=body.dimensions,
        is_truncated=body.truncate is not False,
        model=model_name,
    )
    return checked_text(request, body)


def _shared(body: OllamaBody) -> dict[str, Any]:
    return {
        **shared_params(body),
        "num_logprobs": _num_logprobs(body),
        "reasoning_budget": body.budget,
        "stream": body.stream is not False,
    }


def _num_logprobs(body: OllamaBody) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", "top_logprobs")
    num_top = (body.top_logprobs or 0) if body.logprobs else None
    return same_value({"top_logprobs": num_top, "n_probs": body.n_probs or None})


def _typed(tools: Tools | None) -> Tools | None:
    """The tools; their only type may be left out."""
    return [{"type": "function", **tool} for tool in tools] if tools else None


def _prompt(body: OllamaTextBody) -> Prompt:
    text = body.prompt or ""
    if body.suffix:
        return Prompt(text=text, suffix=body.suffix)
    if body.raw:
        return Prompt(text=text)
    system = [Message("system", body.system)] if body.system else []
    messages = [*system, Message("user", text)]
    return Prompt(messages=messages, template_options=template_options_of(body))


def _refuse_unsupported(body: OllamaTextBody) -> None:
    refuse_images(body.images, "images")
    _refuse(bool(body.template), "template", "the template is the model's")
    _refuse(bool(body.context), "context", "send the messages to /api/chat")
    is_bare = bool(body.raw or body.suffix)
    _refuse(bool(body.system) and is_bare, "system", "no message is made of the prompt")


def _refuse(is_refused: bool, param: str, reason: str) -> None:
    if is_refused:
        raise UnsupportedParameterError(f"{param}: {reason}", param)
