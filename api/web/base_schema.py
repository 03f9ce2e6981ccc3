"""Types of validated fields: strict (true is not 1, "1" is not 1), finite, bounded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

_MAX_TOKEN_ID = 2**31 - 1
_MAX_STOPS = 64
_MAX_STOP_CHARS = 256
_MAX_STOP_TOKENS = 256
_BANNED = -100.0  # `false` in llama-server's list
_MAX_BIASES = 4096
_MAX_PROMPTS = 256
_MAX_BREAKERS = 32  # each costs a search of the whole vocabulary
_MAX_BREAKER_BYTES = 40  # llama.cpp ignores the rest of a longer one

Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for no limit")
    return value


TokenLimit = Annotated[int, Field(strict=True, ge=-1, le=2**31 - 1), AfterValidator(_not_zero)]
"""A limit of tokens; -1 is no limit, as in llama-server."""


def number(low: float, high: float) -> Any:
    """The constraint of a finite number in ``[low, high]``."""
    return Field(strict=True, ge=low, le=high, allow_inf_nan=False)


def integer(low: int, high: int) -> Any:
    """The constraint of an integer in ``[low, high]``."""
    return Field(strict=True, ge=low, le=high)


Probability = Annotated[float, number(0, 1)]


class Body(BaseModel):
    """A request's body; unknown fields are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


def _is_token_ids(value: list[Any]) -> bool:
    return all(type(item) is int and 0 <= item <= _MAX_TOKEN_ID for item in value)


def check_prompt(value: Any, *, max_prompts: int = _MAX_PROMPTS) -> str | list[Any]:
    """Validate a text, texts, token ids or lists of token ids; reports only one error."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string, a list of strings, token ids or lists of token ids")
    kinds = {type(item) for item in value}
    if kinds in (set(), {int}) and _is_token_ids(value):
        return value
    is_many = kinds == {str} or (
        kinds == {list} and all(item and _is_token_ids(item) for item in value)
    )
    if not is_many or len(value) > max_prompts:
        raise ValueError(
            "must be a string, or a list of strings, token ids or non-empty lists of token ids, "
            f"at most {max_prompts} of them"
        )
    return value


def check_stop(value: Any) -> list[str]:
    """Validate one stop string or several; returns a list.

    Empty ones, which some clients always send, have no effect.
    """
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS:
        raise ValueError(f"must be a string or a list of at most {_MAX_STOPS} strings")
    for stop in stops:
        if not isinstance(stop, str) or len(stop) > _MAX_STOP_CHARS:
            raise ValueError(f"a stop string has at most {_MAX_STOP_CHARS} characters")
    return [stop for stop in stops if stop]


def _check_breakers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_BREAKERS:
        raise ValueError(f"must be a list of 1 to {_MAX_BREAKERS} strings")
    for breaker in value:
        if not isinstance(breaker, str) or not _can_break(breaker.encode(errors="replace")):
            raise ValueError(f"each is a string of 1 to {_MAX_BREAKER_BYTES} bytes without NUL")
    return tuple(value)


def _can_break(breaker: bytes) -> bool:
    return 1 <= len(breaker) <= _MAX_BREAKER_BYTES and 0 not in breaker


def check_logit_bias(value: Any) -> dict[int, float]:
    """Validate OpenAI's object of token ids and biases, or llama-server's list of pairs."""
    if isinstance(value, list):
        value = dict(map(_pair, value))
    if not isinstance(value, dict) or len(value) > _MAX_BIASES:
        raise ValueError(f"must be an object with at most {_MAX_BIASES} token ids")
    return {_token_id(key): _bias(bias) for key, bias in value.items()}


def _pair(value: Any) -> tuple[str, Any]:
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int:
        raise ValueError("a list of [token id, number or false]")
    return str(value[0]), value[1]


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) <= _MAX_TOKEN_ID):
        raise ValueError("the keys must be token ids")
    return int(key)


def _bias(value: Any) -> float:
    """A number; ``false`` is llama-server's for a token that must not come."""
    if value is False:
        return _BANNED
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -100 <= value <= 100:
        raise ValueError("a bias is a number from -100 to 100")
    return float(value)


_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PROMPT_SCHEMA: dict[str, Any] = {
    "anyOf": [_TEXT, {"type": "array", "items": _TEXT}, _IDS, {"type": "array", "items": _IDS}]
}
PromptValue = Annotated[
    str | list[Any], PlainValidator(check_prompt), WithJsonSchema(PROMPT_SCHEMA)
]
StopValue = Annotated[
    list[str],
    PlainValidator(check_stop),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}),
]
TokenIds = Annotated[
    list[Annotated[int, integer(0, _MAX_TOKEN_ID)]],
    Field(max_length=_MAX_STOP_TOKENS, fail_fast=True),
]
LogitBias = Annotated[
    dict[int, float],
    PlainValidator(check_logit_bias),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number"}}),
]
Breakers = Annotated[
    tuple[str, ...],
    PlainValidator(_check_breakers),
    WithJsonSchema({"type": "array", "items": _TEXT}),
]
