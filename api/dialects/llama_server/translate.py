"""llama-server's bodies to what all dialects mean. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.generation_params import GenerationParams, build_request, checked_text
from api.dialects.llama_server.schema import InfillBody, NativeBody, NativeCompletionBody
from api.dialects.openai.generation.grammars import to_grammar
from api.dialects.sampling_fields import LLAMA_SERVER
from api.execution.shapes import Shape
from api.web.base_schema import check_logit_bias
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt, View

_MAX_PROMPTS = 256
_BANNED = -100.0  # what llama-server calls false


def to_native_request(
    body: NativeCompletionBody | InfillBody, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job that ``body`` asks for; ``InvalidRequestError`` names the parameter at fault."""
    _refuse_unsupported(body)
    params = GenerationParams(
        prompts=[_gap(body)] if isinstance(body, InfillBody) else _prompts(body.prompt),
        sampling=_sampling(body),
        num_logprobs=body.n_probs or None,
        max_tokens=None if body.n_predict == -1 else body.n_predict,
        is_unlimited=body.n_predict == -1,
        stop=body.stop or [],
        grammar=to_grammar(grammar=body.grammar, json_schema=body.json_schema),
        stream=body.stream,
        view=View(
            Shape.NATIVE, has_tokens=body.return_tokens, fields=list(body.response_fields or ())
        ),
    )
    return checked_text(build_request(params, defaults, model_name), body)


def _refuse_unsupported(body: NativeBody) -> None:
    asked = {
        "post_sampling_probs": body.post_sampling_probs,
        "t_max_predict_ms": (body.t_max_predict_ms or 0) > 0,
        "lora": body.lora,
    }
    for name, value in asked.items():
        if value:
            raise UnsupportedParameterError(f"{name}: not supported by this server", name)
    if body.n_predict == 0:
        raise UnsupportedParameterError("n_predict: 0 is not supported", "n_predict")


def _sampling(body: NativeBody) -> dict[str, Any]:
    """The table's fields; a seed of -1 is a new one."""
    given = LLAMA_SERVER.read(body)
    if given.get("seed") == -1:
        del given["seed"]
    if "logit_bias" in given:
        given["logit_bias"] = _logit_bias(given["logit_bias"])
    return given


def _logit_bias(given: dict[str, Any] | list[Any]) -> dict[int, float]:
    """OpenAI's object, or llama-server's list of pairs; only token ids, no texts."""
    try:
        return check_logit_bias(dict(map(_bias, given)) if isinstance(given, list) else given)
    except ValueError as error:
        raise InvalidRequestError(f"logit_bias: {error}", "logit_bias") from None


def _bias(pair: Any) -> tuple[str, Any]:
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int:
        raise ValueError("a list of [token id, number or false]")
    return str(pair[0]), _BANNED if pair[1] is False else pair[1]


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
