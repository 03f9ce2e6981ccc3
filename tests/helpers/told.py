"""What an error says, in whichever dialect."""

from __future__ import annotations

from typing import Any


def told(answer: Any) -> tuple[str, str]:
    """Message and parameter of an error's answer."""
    body = answer.json()
    if isinstance(body["error"], str):  # ollama's
        return body["error"], body["param"]
    error = body["error"]
    return error["message"], error.get("details", error)["param"]
