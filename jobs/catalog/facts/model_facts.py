"""The facts of a model, and what a chat template tells."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

_TOOLS = re.compile(r"\btools\b")

InputKind = Literal["text", "image", "audio"]


class ModelFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model's files say. ``None`` and "": they say nothing, or cannot be read.

    ``modified_at`` is in epoch seconds, ``context_length`` in tokens. ``input_kinds`` are those
    that the model was made for, whether or not a server can send them to it.
    """

    modified_at: int = 0
    context_length: int | None = None
    architecture: str = ""
    quantization: str = ""
    num_parameters: int | None = None
    input_kinds: tuple[InputKind, ...] = ("text",)
    task: Literal["generation", "embedding"] | None = None
    has_chat_template: bool | None = None
    has_tools: bool | None = None


def takes_tools(template: str) -> bool:
    """Whether a chat template shows tools to the model."""
    return _TOOLS.search(template) is not None
