"""The parameters of a generation in every dialect, and how they become a job."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.grammars import Grammar
from jobs.contract.requests import (
    GenerateRequest,
    GenerationDefaults,
    OnWorkerLoss,
    Prompt,
    ToolUse,
    View,
)
from jobs.contract.sampling import Sampling

_MAX_SEQUENCES = 256
_SEED_BITS = 64
_R = TypeVar("_R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """A request, independent of the dialect. An absent value means the model's default, or off.

    ``sampling`` has the values that the client gave, by the names of ``Sampling``. The limit of
    tokens is ``max_tokens``, else the model's default, else ``fallback_max_tokens``, else there is
    none; with ``is_unlimited`` there is none in any case.
    """

    prompts: list[Prompt]
    is_chat: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    num_logprobs: int | None = None
    max_tokens: int | None = None
    fallback_max_tokens: int | None = None
    is_unlimited: bool = False
    num_choices: int = 1
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    min_tokens: int = 0
    predict_limit_ms: float | None = None
    min_indent: int = 0
    truncate_prompt_tokens: int | None = None
    echo: bool = False
    adapter: str | None = None
    grammar: Grammar | None = None
    tool_use: ToolUse | None = None
    reasoning_budget: int | None = None
    on_worker_loss: OnWorkerLoss = "resume"
    stream: bool = False
    include_usage: bool = False
    complete_text: bool = False
    view: View = field(default_factory=View)


_AS_IT_IS = frozenset(
    one.name for one in fields(GenerationParams) if one.name in GenerateRequest.__struct_fields__
) - {"sampling", "max_tokens"}
"""Fields that a request takes from the parameters without a change."""


def build_request(
    params: GenerationParams, defaults: GenerationDefaults, model_name: str
) -> GenerateRequest:
    """The job for ``params``. Raises ``InvalidRequestError``, which names the wrong parameter."""
    _check(params)
    return GenerateRequest(
        **{name: getattr(params, name) for name in _AS_IT_IS},
        sampling=_sampling(params, defaults),
        max_tokens=_max_tokens(params, defaults),
        is_reasoning_split=params.is_chat,
        api="chat" if params.is_chat else "text",
        model=model_name,
    )


def checked_text(request: _R, body: BaseModel) -> _R:
    """Refuse half surrogate pairs: they have no UTF-8 for Redis or a tokenizer.

    ``InvalidRequestError`` names the field of ``body``.
    """
    try:
        msgspec.json.encode(request)
    except UnicodeEncodeError:
        param = next(filter(partial(_is_no_text, body), [name for name, _ in body]), None)
        raise InvalidRequestError("a text has half a surrogate pair", param) from None
    return request


def _is_no_text(body: BaseModel, name: str) -> bool:
    try:
        msgspec.json.encode(body.model_dump(include={name}, warnings=False))
    except UnicodeEncodeError:
        return True
    return False


def _check(params: GenerationParams) -> None:
    """Refuse what is missing, and parameters that exclude each other."""
    if any(prompt.messages == [] for prompt in params.prompts):
        raise InvalidRequestError("messages: required, and must not be empty", "messages")
    if len(params.prompts) * params.num_choices > _MAX_SEQUENCES:
        raise InvalidRequestError(f"at most {_MAX_SEQUENCES} choices in one request", "n")
    if params.grammar is not None and params.sampling.get("ignore_eos"):
        message = "ignore_eos: a text with a grammar ends where the grammar does"
        raise UnsupportedParameterError(message, "ignore_eos")
    if params.tool_use is not None and not params.is_chat:
        raise UnsupportedParameterError("tools: only a chat can have tools", "tools")
    _check_ends(params)


def _check_ends(params: GenerationParams) -> None:
    """Refuse lengths that contradict what else is asked for."""
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise InvalidRequestError("min_tokens: more than max_tokens", "min_tokens")
    if params.min_tokens and params.grammar is not None:
        message = "min_tokens: a text with a grammar ends where the grammar does"
        raise UnsupportedParameterError(message, "min_tokens")
    is_whole = not params.echo and all(prompt.suffix is None for prompt in params.prompts)
    if params.truncate_prompt_tokens is not None and not is_whole:
        message = "truncate_prompt_tokens: not with echo or suffix"
        raise UnsupportedParameterError(message, "truncate_prompt_tokens")


def _max_tokens(params: GenerationParams, defaults: GenerationDefaults) -> int | None:
    if params.is_unlimited:
        return None
    wishes = (params.max_tokens, defaults.max_tokens, params.fallback_max_tokens)
    return next((num for num in wishes if num is not None), None)


def _sampling(params: GenerationParams, defaults: GenerationDefaults) -> Sampling:
    """The given values, else the model's defaults; a seed is drawn where none is given."""
    held = {
        name: value
        for name, value in msgspec.structs.asdict(defaults).items()
        if value is not None and name != "max_tokens"
    }
    seed = params.sampling.get("seed")
    seed = secrets.randbits(32) if seed is None else seed % (1 << _SEED_BITS)
    given = {**held, **params.sampling, "seed": seed}
    return Sampling(**given, num_logprobs=params.num_logprobs)
