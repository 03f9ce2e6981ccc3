"""Whose body an answer has, where it is not that of the first route of its kind of job.

The name is in the job's request, so that who reads the job later is shown the same body.
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
