"""Variables of chat templates that clients may set."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.openai.generation.reasoning import RESERVED, to_template_options
from jobs.contract.errors import InvalidRequestError
from workers.text.templates.sandbox import TemplateSandbox

NAMES = ("clear_thinking", "model_identity", "date_string", "documents", "custom_tools")


@pytest.mark.parametrize("value", [True, None, 1, 2.5, "a", [1, {"b": []}], {"a": {"b": "c"}}])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_and_any_json_value_is_taken(name: str, value: Any) -> None:
    assert to_template_options(chat_template_kwargs={name: value}) == {name: value}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("given", "param"),
    [
        *(({name: 1}, f"chat_template_kwargs.{name}") for name in sorted(RESERVED)),
        ({"__class__": 1}, "chat_template_kwargs.__class__"),
        ({"a b": 1}, "chat_template_kwargs.a b"),
        ({"": 1}, "chat_template_kwargs."),
        ({"n" * 65: 1}, "chat_template_kwargs." + "n" * 64),
        ({f"n{i}": 1 for i in range(65)}, "chat_template_kwargs"),
        ({"a": nested(33)}, "chat_template_kwargs"),
        ({"a": nested(100_000)}, "chat_template_kwargs"),
        ({"a": "x" * 600_000}, "chat_template_kwargs"),
        ({"a": float("nan")}, "chat_template_kwargs"),
        ({"enable_thinking": "yes"}, "chat_template_kwargs.enable_thinking"),
        ({"reasoning_effort": 3}, "chat_template_kwargs.reasoning_effort"),
    ],
)
def test_what_is_the_servers_or_too_large_is_refused_by_name(given: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_template_options(chat_template_kwargs=given)
    assert caught.value.param == param


def test_all_that_templates_get_from_the_renderer_is_reserved() -> None:
    ours = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"]
    assert {*TemplateSandbox().globals, *ours} <= RESERVED


def test_two_ways_to_say_how_much_to_think_must_agree() -> None:
    assert to_template_options(enable_thinking=True, think=True) == {
        "enable_thinking": True,
        "thinking": True,
    }
    with pytest.raises(InvalidRequestError) as caught:
        to_template_options(enable_thinking=True, think=False)
    assert caught.value.param == "enable_thinking"
