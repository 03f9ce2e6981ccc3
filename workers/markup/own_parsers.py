"""Parsers of tool calls in dialects that mlx_lm does not read. They raise for an invalid call.

The formats are documented by the model makers: Llama 3 (bare JSON), gpt-oss (Harmony), DeepSeek V3.
"""

from __future__ import annotations

import json
import re
from typing import Any

Call = dict[str, Any]

_HARMONY_HEAD = re.compile(r"\s*([\w.-]+)[^{]*")
_DEEPSEEK_CALL = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?\s*([\w.-]+)\s*(?:<｜tool▁sep｜>|\n)"
    r"(?:```json)?\s*(\{.*?\})\s*(?:```)?\s*<｜tool▁call▁end｜>",
    re.DOTALL,
)


def read_llama(text: str, _: object = None) -> list[Call]:
    """JSON objects with ``name`` and ``parameters``, separated by nothing or semicolons."""
    calls: list[Call] = []
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        found, end = decoder.raw_decode(rest)
        arguments = found["parameters"] if "parameters" in found else found["arguments"]
        calls.append({"name": found["name"], "arguments": arguments})
        rest = rest[end:].lstrip("; \n")
    return calls


def read_harmony(text: str, _: object = None) -> Call:
    """The name, the type of the content, then the arguments as JSON."""
    head = _HARMONY_HEAD.match(text)
    if head is None:
        raise ValueError("the call has no name")
    return {"name": head[1], "arguments": json.loads(text[head.end() :] or "{}")}


def read_deepseek(text: str, _: object = None) -> list[Call]:
    """Any number of calls, each between its own markers."""
    found = _DEEPSEEK_CALL.findall(text)
    return [{"name": name, "arguments": json.loads(arguments)} for name, arguments in found]
