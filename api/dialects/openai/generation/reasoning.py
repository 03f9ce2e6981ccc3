"""What a body says to the chat template: how much to think, and variables of its own. Pure."""

from __future__ import annotations

import json
from typing import Any

from api.dialects.sampling_fields import same_value
from api.dialects.shared_fields import ReasoningFields
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError

_FIELD = "chat_template_kwargs"
_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
_MAX_CHARS = 64
_MAX_OPTIONS = 64
_MAX_BYTES = 1 << 19
_MAX_DEPTH = 32
# What templates know as true or false, and as a word.
_SWITCHES = frozenset({"enable_thinking", "thinking", "preserve_thinking", "keep_past_thinking"})
_WORDS = frozenset({"reasoning_effort", "thinking_mode", "reasoning_mode"})
RESERVED = frozenset(
    "add_generation_prompt bos_token eos_token messages tools options "
    "chat_template continue_final_message tokenize "
    "cycler dict joiner lipsum namespace raise_exception range strftime_now".split()
)
"""Variables and functions that templates get from us, and arguments of those who render them."""


def to_template_options(
    *,
    enable_thinking: bool | None = None,
    think: bool | str | None = None,
    reasoning_effort: str | None = None,
    thinking_budget: int | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    documents: list[Any] | None = None,
) -> dict[str, Any] | None:
    """Variables for the chat template; ``InvalidRequestError`` names what is not allowed."""
    options = _checked_options(chat_template_kwargs or {})
    if documents:
        options |= _checked_options({"documents": documents}, "documents")
    is_on, effort = _of_think(think)
    is_on = same_value({"enable_thinking": enable_thinking, "think": is_on})
    effort = same_value({"reasoning_effort": reasoning_effort, "think": effort})
    if effort is not None:
        options["reasoning_effort"] = effort
    if is_on is None and (effort == "none" or thinking_budget == 0):
        is_on = False
    if is_on is not None:
        # Templates call it one or the other.
        options |= {"enable_thinking": is_on, "thinking": is_on}
    return options or None


def template_options_of(body: ReasoningFields) -> dict[str, Any] | None:
    """Those that a body asks for."""
    return to_template_options(
        enable_thinking=body.enable_thinking,
        think=body.think,
        reasoning_effort=body.reasoning_effort,
        thinking_budget=body.budget,
        chat_template_kwargs=body.chat_template_kwargs,
        documents=body.documents,
    )


def _of_think(think: bool | str | None) -> tuple[bool | None, str | None]:
    """ollama's ``think``: on or off, or how much."""
    if not isinstance(think, str) or not think:
        return (think if isinstance(think, bool) else None), None
    if think not in _EFFORTS:
        raise InvalidRequestError("think: true, false or an effort", "think")
    return None, think


def _checked_options(given: dict[str, Any], field: str = _FIELD) -> dict[str, Any]:
    if len(given) > _MAX_OPTIONS:
        raise InvalidRequestError(f"{field}: at most {_MAX_OPTIONS} names", field)
    for name, value in given.items():
        _check_option(name, value)
    try:
        size = len(json.dumps(given, allow_nan=False))
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{field}: only JSON values", field) from None
    if size > _MAX_BYTES or _is_deeper(given, _MAX_DEPTH):
        message = f"{field}: more than {_MAX_BYTES} bytes, or nested deeper than {_MAX_DEPTH}"
        raise InvalidRequestError(message, field)
    return dict(given)


def _check_option(name: str, value: Any) -> None:
    place = f"{_FIELD}.{name[:_MAX_CHARS]}"
    if name in RESERVED or name.startswith("_"):
        raise UnsupportedParameterError(f"{place}: this name is the server's", place)
    if not name.isidentifier() or len(name) > _MAX_CHARS:
        raise InvalidRequestError(f"{place}: no name of a template's variable", place)
    if name in _SWITCHES and not isinstance(value, bool):
        raise InvalidRequestError(f"{place}: true or false", place)
    if name in _WORDS and not (isinstance(value, str) and len(value) <= _MAX_CHARS):
        raise InvalidRequestError(f"{place}: a text of at most {_MAX_CHARS} characters", place)


def _is_deeper(value: Any, depth: int) -> bool:
    members = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return False
    return depth == 0 or any(_is_deeper(member, depth - 1) for member in members)
