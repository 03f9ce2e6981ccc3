"""Fields that have the same name in several dialects, ours and those of other servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from api.dialects.refused_fields import RefusedFields
from api.dialects.sampling_fields import LlamaServerSamplingBody, SamplingBody, same_value
from api.web.base_schema import Body, StopValue, Text, TokenIds, integer, number

MAX_TOKENS = 2**31 - 1
NO_LIMIT = -1
"""What llama-server's clients send for no limit of tokens."""


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value


Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
    BeforeValidator(_none_if_blank),
]


class EndFields(Body):
    """What ends a text, or keeps it from ending: llama-server's and vLLM's names.

    ``n_predict`` is ``max_tokens``. ``t_max_predict_ms`` ends a text that has a line break when its
    first token is so many milliseconds old. Before ``min_tokens`` nothing ends it.
    """

    n_predict: Annotated[int, integer(NO_LIMIT, MAX_TOKENS)] | None = None
    t_max_predict_ms: Annotated[float, number(-1, 1e12)] | None = None
    min_tokens: Annotated[int, integer(0, MAX_TOKENS)] | None = None
    stop_token_ids: TokenIds | None = None
    truncate_prompt_tokens: Annotated[int, integer(1, MAX_TOKENS)] | None = None


class FormFields(Body):
    """The form of the whole text, in the words of several servers (grammars.py).

    ``grammar`` is GBNF or Lark; ``json_schema``, ``regex`` and ``choice`` are what the text has to
    be. ``guided_…`` and ``structured_outputs`` are vLLM's names of the same.
    """

    json_schema: dict[str, Any] | None = None
    grammar: Text | None = None
    choice: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    regex: Text | None = None
    guided_json: dict[str, Any] | Text | None = None
    guided_grammar: Text | None = None
    guided_choice: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    guided_regex: Text | None = None
    structured_outputs: dict[str, Any] | None = None


class SharedFields(EndFields, FormFields, RefusedFields, SamplingBody):
    """Fields that have the same name in every dialect. ``adapters`` is mlx_lm.server's name."""

    adapter_name: Annotated[str, Field(strict=True, max_length=255)] | None = None
    adapters: Annotated[str, Field(strict=True, max_length=255)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    on_worker_loss: Literal["resume", "fail"] = "resume"

    @property
    def adapter(self) -> str | None:
        """The adapter asked for."""
        names = {"adapter_name": self.adapter_name, "adapters": self.adapters}
        return same_value(names) or None


class OllamaOptions(RefusedFields, LlamaServerSamplingBody):
    """ollama's ``options``; what says how to load a model (``num_ctx``, …) is ignored."""

    num_predict: Annotated[int, integer(-2, MAX_TOKENS)] | None = None
    stop: StopValue | None = None


def end_params(body: EndFields, **names: int | None) -> dict[str, Any]:
    """The same as fields of ``GenerationParams``; ``names`` are the dialect's of ``max_tokens``."""
    limit = same_value({**names, "n_predict": body.n_predict})
    time_ms = body.t_max_predict_ms or 0
    return {
        "max_tokens": None if limit == NO_LIMIT else limit,
        "is_unlimited": limit == NO_LIMIT,
        "min_tokens": body.min_tokens or 0,
        "stop_token_ids": body.stop_token_ids or [],
        "predict_limit_ms": time_ms if time_ms > 0 else None,
        "truncate_prompt_tokens": body.truncate_prompt_tokens,
    }
