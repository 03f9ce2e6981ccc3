"""Bodies of ollama's API: what its clients send. ``null`` is as good as nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from api.dialects.openai.generation.schema import MessageBody
from api.dialects.order_fields import DeadlineField
from api.dialects.shared_fields import KeepFields, SharedFields
from api.web.base_schema import Body, Count, Flag, Text, integer

_MAX_INPUTS = 2048


class OllamaMessage(MessageBody):
    """A message; calls have arguments as objects, mostly no ids, and results name their tool."""

    thinking: Text | None = None
    tool_name: Text | None = None
    images: list[Any] | None = None


class OllamaBody(SharedFields):
    """What chats and texts share. Sampling parameters are in ``options``, or beside it, as here.

    ``stream`` is on unless it is false.
    """

    model: Text | None = None
    stream: Flag | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, integer(0, 20)] | None = None


class OllamaChatBody(OllamaBody):
    """POST /api/chat. Without messages it loads the model, or unloads it (``keep_alive`` 0)."""

    messages: Annotated[list[OllamaMessage], Field(fail_fast=True)] | None = None
    tools: list[dict[str, Any]] | None = None


class OllamaTextBody(OllamaBody):
    """POST /api/generate. ``prompt`` is a user's message, or with ``raw`` or ``suffix`` the text.

    Without it the model is loaded, or unloaded (``keep_alive`` 0).
    """

    prompt: Text | None = None
    suffix: Text | None = None
    system: Text | None = None
    raw: Flag | None = None
    template: Text | None = None
    context: list[Any] | None = None
    images: list[Any] | None = None


Inputs = Annotated[list[Text], Field(max_length=_MAX_INPUTS, fail_fast=True)]


class OllamaEmbedBody(KeepFields, DeadlineField):
    """POST /api/embed. Inputs are cut to the model's context unless ``truncate`` is false."""

    model: Text | None = None
    input: Text | Inputs | None = None
    truncate: Flag | None = None
    dimensions: Count | None = None


class OllamaEmbeddingsBody(KeepFields):
    """POST /api/embeddings, the older route for one text."""

    model: Text | None = None
    prompt: Text | None = None


class OllamaNameBody(Body):
    """POST /api/show, DELETE /api/delete; ``name`` is the older name of ``model``."""

    model: Annotated[Text, Field(validation_alias=AliasChoices("model", "name"))]


class OllamaPullBody(OllamaNameBody):
    """POST /api/pull: a model of the hub. ``stream`` is on unless it is false."""

    stream: Flag | None = None
