"""The fields that all dialects share, as parameters of a generation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.dialects.openai.generation.grammars import to_grammar
from api.dialects.refused_fields import refuse_fields
from api.dialects.samplers import switched_off
from api.dialects.sampling_fields import OURS, same_value
from api.dialects.shared_fields import NO_LIMIT, FormFields, JobFields, OllamaOptions
from api.web.base_schema import Body
from api.web.errors import checked


def shared_params(
    body: JobFields,
    *,
    own: Body | None = None,
    limits: Mapping[str, int | None] | None = None,
    stops: Mapping[str, list[str] | None] | None = None,
    response_format: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fields of ``GenerationParams``. ``InvalidRequestError`` names what is not done, or differs.

    The dialect's own are ``own``, sampling parameters that it has declared itself, and
    ``limits`` and ``stops``, its names for ``max_tokens`` and ``stop`` with their values.
    """
    refuse_fields(body)
    options = checked(OllamaOptions, _with_whole_numbers(body.options or {}), "options")
    refuse_fields(options, "options.")
    return {
        "sampling": _sampling(body, own, options),
        "stop": _stop({**(stops or {}), "stop": body.stop, "options.stop": options.stop}),
        "adapter": body.adapter,
        "grammar": to_grammar(response_format=response_format, **_forms(body)),
        "on_worker_loss": body.on_worker_loss or "resume",
        **_ends(body, {**(limits or {}), "options.num_predict": options.limit}),
    }


def _with_whole_numbers(options: dict[str, Any]) -> dict[str, Any]:
    """ollama reads a number without a fraction as an integer, and its clients rely on it."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in options.items()
    }


def _sampling(body: JobFields, own: Body | None, options: OllamaOptions) -> dict[str, Any]:
    given = {**OURS.read(body), **(OURS.read(own) if own is not None else {})}
    optional = OURS.read(options)
    for name in given.keys() & optional.keys():
        same_value({name: given[name], f"options.{name}": optional[name]})
    given |= optional
    return {**given, **switched_off(body.samplers, given)}


def _stop(names: Mapping[str, list[str] | None]) -> list[str]:
    return same_value({name: stop or None for name, stop in names.items()}) or []


def _forms(body: JobFields) -> dict[str, Any]:
    """An empty ``format`` is what ollama's clients send for none."""
    forms = {name: getattr(body, name) for name in FormFields.model_fields}
    return {**forms, "format": body.format or None}


def _ends(body: JobFields, limits: Mapping[str, int | None]) -> dict[str, Any]:
    limit = same_value({**limits, "n_predict": body.n_predict})
    time_ms = body.t_max_predict_ms or 0
    return {
        "max_tokens": None if limit == NO_LIMIT else limit,
        "is_unlimited": limit == NO_LIMIT,
        "min_tokens": body.min_tokens or 0,
        "min_indent": body.n_indent or 0,
        "stop_token_ids": body.stop_token_ids or [],
        "predict_limit_ms": time_ms if time_ms > 0 else None,
        "truncate_prompt_tokens": body.truncate_prompt_tokens,
    }
