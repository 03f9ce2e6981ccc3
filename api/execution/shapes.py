"""The body format of an answer, where it is not that of the main route of its kind of job.

It is stored in the job's request, so that later reads of the job get the same body.
"""

from __future__ import annotations

from enum import StrEnum


class Shape(StrEnum):
    """Values of ``View.shape``."""

    KIND = ""
    MESSAGE = "message"
    RESPONSE = "response"
    NATIVE = "native"
    LOGITS = "logits"
    INPUT_TOKENS = "input_tokens"
    MESSAGE_TOKENS = "message_tokens"
    TEXT = "text"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_TEXT = "ollama_text"
