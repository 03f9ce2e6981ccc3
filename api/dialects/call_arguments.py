"""A tool call's arguments as the object that some dialects show."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pydantic_core


def arguments_object(arguments: str) -> Any:
    """The arguments as an object, to the digit; of cut ones, what is whole.

    What is no object is for the tool to judge.
    """
    try:
        value = json.loads(arguments)
    except ValueError:
        return _whole_part(arguments)
    return msgspec.Raw(arguments.encode()) if isinstance(value, dict) else {"arguments": value}


def _whole_part(arguments: str) -> dict[str, Any]:
    try:
        value = pydantic_core.from_json(arguments, allow_partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
