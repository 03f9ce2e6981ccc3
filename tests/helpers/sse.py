"""Parses an SSE stream."""

from __future__ import annotations

import json
from typing import Any


def frames(text: str) -> list[Any]:
    """The data of all frames; ``[DONE]`` stays a string."""
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in found]
