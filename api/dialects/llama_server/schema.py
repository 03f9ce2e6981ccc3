"""Bodies and answers of llama-server's own routes: /completion, /infill, /slots, /props."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from api.dialects.shared_fields import MAX_TOKENS, NO_LIMIT, JobFields
from api.web.base_schema import PROMPT_SCHEMA, Body, Flag, Text, integer

NativePrompt = Annotated[
    str | dict[str, Any] | list[Any],
    WithJsonSchema({"anyOf": [*PROMPT_SCHEMA["anyOf"], {"type": "object"}]}),
]
_Limit = Annotated[int, integer(NO_LIMIT, MAX_TOKENS)] | None
_One = Annotated[int, integer(1, 1)] | None


class NativeBody(JobFields):
    """What /completion and /infill share, named as in llama-server; absent means off.

    ``cache_prompt``, ``id_slot`` and what else only concerns its slots is ignored. ``n_predict`` 0
    reads the prompt, which warms the cache.
    """

    model: Text | None = None
    max_tokens: _Limit = None
    max_completion_tokens: _Limit = None
    n: _One = None
    n_cmpl: _One = None
    stream: Flag | None = None
    logprobs: Annotated[int, integer(0, 20)] | None = None
    return_tokens: Flag | None = None
    response_fields: list[Text] | None = None


class NativeCompletionBody(NativeBody):
    """POST /completion."""

    prompt: NativePrompt


class ExtraBody(Body):
    """A piece of another file, shown before the one with the gap."""

    filename: Text | None = None
    text: Text


class InfillBody(NativeBody):
    """POST /infill: the gap is between ``input_prefix`` with ``prompt``, and ``input_suffix``."""

    input_prefix: Text | None = None
    input_suffix: Text | None = None
    prompt: Text | None = None
    input_extra: Annotated[list[ExtraBody], Field(max_length=1000, fail_fast=True)] | None = None


class NativeCompletion(BaseModel):
    """One text; with several prompts the answer is a list of these."""

    model_config = ConfigDict(protected_namespaces=())

    index: int
    content: str
    tokens: list[int]
    id_slot: int
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    generation_settings: dict[str, Any]
    prompt: str | list[int]
    has_new_line: bool
    truncated: bool
    stop_type: Literal["none", "eos", "limit", "word"]
    stopping_word: str
    timings: dict[str, float]
    completion_probabilities: list[dict[str, Any]] | None = None


class NativeSlot(BaseModel):
    """One of the sequences that can run at once."""

    id: int
    n_ctx: int
    is_processing: bool


class NativeProps(BaseModel):
    """What clients ask before they begin."""

    model_config = ConfigDict(protected_namespaces=())

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str


class ModelNameBody(Body):
    """A model by its name; for a download, a repository of the hub with ``:QUANT`` behind it."""

    model: Annotated[Text, Field(min_length=1, max_length=255)]
