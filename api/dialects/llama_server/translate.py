"""llama-server's bodies to what all dialects mean. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.llama_server.schema import InfillBody, NativeCompletionBody
from api.dialects.openai.generation.grammars import to_grammar
from api.dialects.refused_fields import refuse_fields
from api.dialects.sampling_fields import LLAMA_SERVER
from api.dialects.shared_fields import end_params
from api.execution.shapes import Shape
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt, View

_MAX_PROMPTS = 256


def to_native_request(
    body: NativeCompletionBody | InfillBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    refuse_fields(body)
    params = GenerationParams(
        prompts=[_gap(body)] if isinstance(body, InfillBody) else _prompts(body.prompt),
        sampling=LLAMA_SERVER.read(body),
        num_logprobs=body.n_probs or None,
        **end_params(body),
        stop=body.stop or [],
        grammar=to_grammar(grammar=body.grammar, json_schema=body.json_schema),
        stream=body.stream,
        view=View(
            Shape.NATIVE, has_tokens=body.return_tokens, fields=list(body.response_fields or ())
        ),
    )
    return checked_text(build_request(params, defaults, model_name), body)


def _gap(body: InfillBody) -> Prompt:
    extras = "".join(f"{one.filename or 'tmp'}\n{one.text}\n" for one in body.input_extra or ())
    return Prompt(text=extras + body.input_prefix + body.prompt, suffix=body.input_suffix)


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
