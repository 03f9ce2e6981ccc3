"""llama-server's bodies to what all dialects mean. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.llama_server.schema import InfillBody, NativeCompletionBody
from api.dialects.sampling_fields import same_value
from api.dialects.shared_params import shared_params
from api.execution.shapes import Shape
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt, View

_MAX_PROMPTS = 256


def to_native_request(
    body: NativeCompletionBody | InfillBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    limits = {"max_tokens": body.max_tokens, "max_completion_tokens": body.max_completion_tokens}
    probs = {"n_probs": body.n_probs or None, "logprobs": body.logprobs or None}
    params = GenerationParams(
        prompts=[_gap(body)] if isinstance(body, InfillBody) else _prompts(body.prompt),
        num_logprobs=same_value(probs),
        **shared_params(body, limits=limits),
        stream=bool(body.stream),
        view=View(
            Shape.NATIVE,
            has_tokens=bool(body.return_tokens),
            fields=list(body.response_fields or ()),
        ),
    )
    return checked_text(build_request(params, defaults, model_name), body)


def _gap(body: InfillBody) -> Prompt:
    extras = "".join(f"{one.filename or 'tmp'}\n{one.text}\n" for one in body.input_extra or ())
    before = extras + (body.input_prefix or "") + (body.prompt or "")
    return Prompt(text=before, suffix=body.input_suffix or "")


def _prompts(given: Any) -> list[Prompt]:
    """One prompt, or several in a list; a list of numbers is one."""
    is_one = not isinstance(given, list) or all(type(item) is int for item in given)
    prompts = [_prompt(given)] if is_one else [_prompt(item) for item in given]
    if len(prompts) > _MAX_PROMPTS:
        raise InvalidRequestError(f"prompt: at most {_MAX_PROMPTS} of them", "prompt")
    return prompts


def _prompt(given: Any) -> Prompt:
    if isinstance(given, dict):
        if given.get("multimodal_data"):
            message = "prompt.multimodal_data: only text is supported"
            raise UnsupportedParameterError(message, "prompt.multimodal_data")
        given = given.get("prompt_string")
    if isinstance(given, str) and given:
        return Prompt(text=given)
    if isinstance(given, list) and given and all(type(item) is int for item in given):
        return Prompt(token_ids=given)
    message = "prompt: a text, token ids, an object with prompt_string, or a list of these"
    raise InvalidRequestError(message, "prompt")
