"""An error as ollama's clients know it. Pure."""

from __future__ import annotations

import msgspec

from api.web.errors import Problem

_PREFIX = "/api"


def is_ollama(path: str) -> bool:
    """Whether the route with that path speaks ollama's language."""
    return path == _PREFIX or path.startswith(_PREFIX + "/")


def error_body(problem: Problem) -> bytes:
    """The body of an answer, or the last line of a stream: a text, then our stable fields."""
    message = problem.message
    if problem.code == "model_not_found":
        message = f"model not found: {message}"  # clients look for these words
    error = {"error": message, "code": problem.code, "param": problem.param}
    return msgspec.json.encode(error)
