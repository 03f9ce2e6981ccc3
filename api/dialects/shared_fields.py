"""Fields that have the same name in several dialects, ours and those of other servers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from api.dialects.order_fields import OrderFields
from api.dialects.refused_fields import RefusedFields
from api.dialects.sampling_fields import SamplingBody, same_value
from api.web.base_schema import Body, Flag, StopValue, Text, TokenIds, integer, number
from api.web.errors import checked
from jobs.contract.keep_alive import parse_keep_alive

MAX_TOKENS = 2**31 - 1
NO_LIMIT = -1
"""What llama-server's clients send for no limit of tokens."""


def _none_if_blank(value: Any) -> Any:
    return None if value == "" else value


Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None,
    BeforeValidator(_none_if_blank),
]
_Budget = Annotated[int, integer(NO_LIMIT, MAX_TOKENS)] | None
_Name = Annotated[str, Field(strict=True, max_length=255)] | None


class EndFields(Body):
    """What ends a text, or keeps it from ending: llama-server's and vLLM's names.

    ``n_predict`` is ``max_tokens``. ``t_max_predict_ms`` ends a text that has a line break when its
    first token is so many milliseconds old; ``n_indent`` one whose next line is indented less.
    Before ``min_tokens`` nothing ends it.
    """

    n_predict: Annotated[int, integer(NO_LIMIT, MAX_TOKENS)] | None = None
    t_max_predict_ms: Annotated[float, number(-1, 1e12)] | None = None
    n_indent: Annotated[int, integer(0, 10_000)] | None = None
    min_tokens: Annotated[int, integer(0, MAX_TOKENS)] | None = None
    stop: StopValue | None = None
    stop_token_ids: TokenIds | None = None
    truncate_prompt_tokens: Annotated[int, integer(1, MAX_TOKENS)] | None = None


class FormFields(Body):
    """The form of the whole text, in the words of several servers (grammars.py).

    ``grammar`` is GBNF or Lark; ``json_schema``, ``regex`` and ``choice`` are what the text has to
    be. ``guided_…`` and ``structured_outputs`` are vLLM's names of the same, ``format`` ollama's.
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
    format: dict[str, Any] | Text | None = None


class ReasoningFields(Body):
    """What a body says to the chat template; one that knows none of it ignores it.

    ``think`` is ollama's, ``documents`` is vLLM's. Of the names of the budget, the second is vLLM's
    and the others are llama-server's.
    """

    enable_thinking: Flag | None = None
    think: Flag | Text | None = None
    reasoning_effort: Effort = None
    thinking_budget: _Budget = None
    thinking_token_budget: _Budget = None
    thinking_budget_tokens: _Budget = None
    reasoning_budget_tokens: _Budget = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[Any] | None = None

    @property
    def budget(self) -> int | None:
        """How many tokens thoughts may take; ``None``: as many as they want."""
        names = (
            "thinking_budget",
            "thinking_token_budget",
            "thinking_budget_tokens",
            "reasoning_budget_tokens",
        )
        budget = same_value({name: getattr(self, name) for name in names})
        return None if budget == NO_LIMIT else budget


KeepAlive = Annotated[
    float | None,
    BeforeValidator(parse_keep_alive),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}),
]


class KeepFields(Body):
    """How long the model may be unused before it is parked: ollama's and LM Studio's name of it."""

    keep_alive: KeepAlive = None
    ttl: KeepAlive = None

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds after the last request; negative: for ever, 0: no longer than it is needed."""
        return same_value({"keep_alive": self.keep_alive, "ttl": self.ttl})


def keep_alive_of(body: Body) -> float | None:
    """``keep_alive_s`` of a body that does not declare the fields."""
    return checked(KeepFields, body.model_extra or {}).keep_alive_s


class JobFields(KeepFields, OrderFields, EndFields, FormFields, RefusedFields, SamplingBody):
    """Fields of every dialect. ``adapters`` is mlx_lm.server's name, ``options`` is ollama's.

    ``samplers`` and ``n_probs`` are llama-server's: which samplers are on, and ``top_logprobs``.
    """

    adapter_name: _Name = None
    adapters: _Name = None
    on_worker_loss: Literal["resume", "fail"] | None = None
    options: dict[str, Any] | None = None
    samplers: Annotated[list[Text], Field(max_length=64)] | Text | None = None
    n_probs: Annotated[int, integer(0, 20)] | None = None

    @property
    def adapter(self) -> str | None:
        """The adapter asked for."""
        names = {"adapter_name": self.adapter_name, "adapters": self.adapters}
        return same_value(names) or None


class SharedFields(ReasoningFields, JobFields):
    """Fields of every dialect that has chats."""


class OllamaOptions(RefusedFields, SamplingBody):
    """ollama's ``options``; what says how to load a model (``num_ctx``, …) is ignored."""

    num_predict: Annotated[int, integer(-2, MAX_TOKENS)] | None = None
    stop: StopValue | None = None

    @property
    def limit(self) -> int | None:
        """ollama has a second word for no limit: up to the end of the context."""
        is_unlimited = self.num_predict is not None and self.num_predict < 0
        return NO_LIMIT if is_unlimited else self.num_predict
