"""How much a model may think, in the ways that clients know. Pure."""

from __future__ import annotations

from typing import Any

from api.dialects.openai.generation.schema import ReasoningFields
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError

_FIELD = "chat_template_kwargs"
_MAX_CHARS = 64
# Variables of chat templates that say how to answer; others could change what messages mean.
_SWITCHES = frozenset({"enable_thinking", "thinking", "preserve_thinking", "keep_past_thinking"})
_WORDS = frozenset({"reasoning_effort", "thinking_mode", "reasoning_mode"})


def to_template_options(
    *,
    enable_thinking: bool | None,
    reasoning_effort: str | None,
    thinking_budget: int | None,
    chat_template_kwargs: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Variables for the chat template; ``InvalidRequestError`` names what is not allowed."""
    given = chat_template_kwargs or {}
    options = {name: _checked(name, value) for name, value in given.items()}
    if reasoning_effort is not None:
        options["reasoning_effort"] = reasoning_effort
    is_on = enable_thinking
    if is_on is None and (reasoning_effort == "none" or thinking_budget == 0):
        is_on = False
    if is_on is not None:
        # Templates call it one or the other.
        options |= {"enable_thinking": is_on, "thinking": is_on}
    return options or None


def template_options_of(body: ReasoningFields) -> dict[str, Any] | None:
    """Those that a body asks for."""
    return to_template_options(
        **{name: getattr(body, name) for name in ReasoningFields.model_fields}
    )


def _checked(name: str, value: Any) -> Any:
    place = f"{_FIELD}.{name[:_MAX_CHARS]}"
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{place}: true or false", place)
    elif name in _WORDS:
        if not isinstance(value, str) or len(value) > _MAX_CHARS:
            raise InvalidRequestError(f"{place}: a text of at most {_MAX_CHARS} characters", place)
    else:
        known = ", ".join(sorted(_SWITCHES | _WORDS))
        raise UnsupportedParameterError(f"{place}: only these may be set: {known}", place)
    return value
