"""llama-server's bodies to our request: each field under OpenAI's name, checked as there. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError

from api.dialects.llama_server.schema import InfillBody, NativeBody, NativeCompletionBody
from api.dialects.openai.generation.schema import CompletionBody
from api.dialects.openai.generation.translate import check_text, to_generate_request
from api.execution.shapes import Shape
from api.web.errors import describe_validation
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt, View

_MAX_PROMPTS = 256
_BANNED = -100.0  # what llama-server calls false
_SAME_NAMES = (
    "stop", "temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty",
    "frequency_penalty", "mirostat_tau", "mirostat_eta", "grammar", "json_schema", "ignore_eos",
    "stream",
)  # fmt: skip


def to_native_request(
    body: NativeCompletionBody | InfillBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    _refuse_unsupported(body)
    checked = to_generate_request(_to_completion_body(body), defaults, model_name)
    sampling = msgspec.structs.replace(checked.sampling, num_logprobs=body.n_probs or None)
    request = msgspec.structs.replace(
        checked,
        prompts=[_gap(body)] if isinstance(body, InfillBody) else _prompts(body.prompt),
        sampling=sampling,
        max_tokens=_max_tokens(body, defaults),
        view=View(
            Shape.NATIVE, has_tokens=body.return_tokens, fields=list(body.response_fields or ())
        ),
    )
    check_text(request)
    return request


def _refuse_unsupported(body: NativeBody) -> None:
    asked = {
        "post_sampling_probs": body.post_sampling_probs,
        "dry_multiplier": body.dry_multiplier,
        "xtc_probability": body.xtc_probability,
        "dynatemp_range": body.dynatemp_range,
        "t_max_predict_ms": (body.t_max_predict_ms or 0) > 0,
        "lora": body.lora,
    }
    for name, value in asked.items():
        if value:
            raise UnsupportedParameterError(f"{name}: not supported by this server", name)


def _to_completion_body(body: NativeBody) -> CompletionBody:
    fields: dict[str, Any] = {name: getattr(body, name) for name in _SAME_NAMES}
    fields["seed"] = None if body.seed == -1 else body.seed
    fields["top_k"] = None if body.top_k == -1 else body.top_k
    fields["repetition_context_size"] = None if body.repeat_last_n == -1 else body.repeat_last_n
    fields["mirostat_mode"] = body.mirostat
    fields["logit_bias"] = _logit_bias(body.logit_bias)
    try:
        return CompletionBody.model_validate({"prompt": "-", **fields})
    except ValidationError as error:  # of what is not checked yet
        first = error.errors()[0]
        message, param = describe_validation([{**first, "loc": ("body", *first["loc"])}])
        raise InvalidRequestError(message, param) from None


def _logit_bias(given: dict[str, Any] | list[Any] | None) -> dict[str, Any] | None:
    """llama-server's list of pairs as OpenAI's object; only token ids, no texts."""
    if not isinstance(given, list):
        return given
    found = {}
    for pair in given:
        is_pair = isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int
        if not is_pair:
            message = "logit_bias: a list of [token id, number or false]"
            raise InvalidRequestError(message, "logit_bias")
        found[str(pair[0])] = _BANNED if pair[1] is False else pair[1]
    return found


def _max_tokens(body: NativeBody, defaults: GenerationDefaults) -> int | None:
    if body.n_predict == 0:
        raise UnsupportedParameterError("n_predict: 0 is not supported", "n_predict")
    given = defaults.max_tokens if body.n_predict is None else body.n_predict
    return None if given == -1 else given


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
