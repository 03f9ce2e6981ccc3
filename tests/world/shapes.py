"""Shapes of chats: what every template of the catalog is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Look up the weather.\nToday's only.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name"},
                    "unit": {"type": "string", "enum": ["°C", "°F"], "default": "°C"},
                    "days": {"type": "array", "items": {"type": "integer"}, "maximum": 2**53},
                    "near": {"type": "object", "properties": {"lat": {"type": "number"}}},
                    "exact": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}},
]


@dataclass(frozen=True, slots=True)
class Shape:
    """The arguments of a render. ``is_continued``: the last message goes on."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    is_continued: bool = False


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def calls(*named: tuple[str, str, dict[str, Any]], text: str = "", **more: Any) -> Message:
    """An assistant's message with a call for each (id, name, arguments)."""
    made = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False)},
        }
        for call_id, name, given in named
    ]
    return said(text, tool_calls=made, **more)


def result(call_id: str, text: str, **more: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text, **more}


_WEATHER = {"city": "Köln", "days": [1, 2], "near": {"lat": 50.9}, "exact": None, "at": 1700000000}
_ASKED = calls(("call_0123456789abcdef", "get_weather", _WEATHER))
_ANSWERED = result("call_0123456789abcdef", '{"sky": "grau"}')
_TURNS = [user("Hello!"), said("Hi. What can I do?"), user("Tell me\na story.  ")]


def long_chat(num_messages: int) -> list[Message]:
    """Turns of a few lines each."""
    line = "Some words of a turn, one line after the other, with <b>marks</b> in it.\n"
    texts = [f"{i}: {line * (1 + i % 4)}" for i in range(num_messages)]
    return [said(text) if i % 2 else user(text) for i, text in enumerate(texts)]


SHAPES = {
    "single": Shape([user("Hello!")]),
    "turns": Shape(_TURNS),
    "blanks": Shape([user("  \n padded\t\n"), said("\n\nso\n"), user("\u00a0x\u2028y ")]),
    "system": Shape([system("Be kind.\nAlways."), *_TURNS]),
    "tools": Shape([user("Weather?")], TOOLS),
    "system_tools": Shape([system("Be kind."), user("Weather?")], TOOLS),
    "call": Shape([user("Weather?"), _ASKED], TOOLS),
    "result": Shape([user("Weather?"), _ASKED, _ANSWERED], TOOLS),
    "after_result": Shape(
        [user("Weather?"), _ASKED, _ANSWERED, said("Grey."), user("And now?")], TOOLS
    ),
    "named_result": Shape(
        [user("Weather?"), _ASKED, {**_ANSWERED, "name": "get_weather"}, said("Grey.")], TOOLS
    ),
    "text_and_call": Shape(
        [user("Now?"), calls(("c1", "now", {}), text="I will look."), result("c1", "12:00")], TOOLS
    ),
    "parallel": Shape(
        [
            user("Weather and time?"),
            calls(("call_1", "get_weather", {"city": "Rom"}), ("call_2", "now", {})),
            result("call_1", "sun"),
            result("call_2", "12:00"),
        ],
        TOOLS,
    ),
    "thoughts_inside": Shape(
        [user("2 + 3?"), said("<think>\nsimple\n</think>\n\n5"), user("Thanks."), said("Welcome.")]
    ),
    "thoughts_beside": Shape(
        [
            user("Weather?"),
            {**_ASKED, "reasoning_content": "I need a tool."},
            _ANSWERED,
            said("Grey.", reasoning_content="Translate it."),
            user("Sure?"),
        ],
        TOOLS,
    ),
    "thinking_off": Shape(_TURNS, None, {"enable_thinking": False}),
    "documents": Shape(
        [user("What is in them?")],
        None,
        {"documents": [{"title": "Öl", "text": "a\nb"}, {"title": "二", "text": "c"}]},
    ),
    "options": Shape(
        _TURNS, None, {"date_string": "1 May", "flavour": "mild", "controls": {"length": "short"}}
    ),
    "continued": Shape([user("Count."), said("One, two,")], is_continued=True),
    "continued_thought": Shape(
        [user("Count."), said("<think>\nwell\n</think>\n\nOne,")], is_continued=True
    ),
    "non_ascii": Shape(
        [
            system("Grüße 👋🏽"),
            user("日本語 \U0001f468\u200d\U0001f469\u200d\U0001f467"),
            said("\ufb01 İ ß"),
            user("é e\u0301 \u200f"),
        ]
    ),
    "empty": Shape([user("")]),
    "two_users": Shape([user("one"), user("two")]),
    "ends_with_answer": Shape([user("Hello!"), said("Hi.")]),
    "late_system": Shape([user("Hello!"), said("Hi."), system("Be short."), user("More.")]),
    "developer": Shape([{"role": "developer", "content": "Be kind."}, user("Hello!")]),
    "nothing": Shape([]),
}
