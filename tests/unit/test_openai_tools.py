"""Tools and thinking in a chat's body, to what the worker reads; wrong ones by their names."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.dialects.openai.generation.schema import ChatBody, CompletionBody, TokenCountBody
from api.dialects.openai.generation.translate import to_generate_request, to_token_count_request
from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, ToolUse

TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER: Any = {"type": "function", "function": {"name": "g"}}
NAMED: Any = {"type": "function", "function": {"name": "g"}}


def chat(**fields: Any) -> GenerateRequest:
    body = ChatBody(**{"messages": [{"role": "user", "content": "hi"}], **fields})
    return to_generate_request(body, GenerationDefaults(), "m")


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"tools": [TOOL]}, ToolUse()),
        ({"tools": [TOOL], "tool_choice": "auto"}, ToolUse()),
        ({"tools": [TOOL], "tool_choice": "none"}, None),
        ({"tools": [TOOL], "tool_choice": "required"}, ToolUse(is_required=True)),
        ({"tools": [TOOL], "parallel_tool_calls": False}, ToolUse(is_single=True)),
        ({"tools": [TOOL], "parallel_tool_calls": True}, ToolUse()),
        (
            {"tools": [TOOL, OTHER], "tool_choice": NAMED},
            ToolUse(is_required=True, is_single=True, name="g"),
        ),
    ],
)
def test_a_choice_of_tools_is_a_use_of_them(fields: Any, use: ToolUse | None) -> None:
    assert chat(**fields).tool_use == use


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [TOOL, {"type": "function"}]}, "tools[1]"),
        ({"tools": [{**TOOL, "n": float("nan")}]}, "tools[0]"),
        ({"functions": [{}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"chat_template_kwargs": {"thinking": "yes"}}, "chat_template_kwargs.thinking"),
        ({"chat_template_kwargs": {"thinking_mode": 1}}, "chat_template_kwargs.thinking_mode"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_only_a_chat_can_have_tools() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_generate_request(CompletionBody(prompt="x", tools=[TOOL]), GenerationDefaults(), "m")
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("fields", "options", "budget"),
    [
        ({}, None, None),
        ({"enable_thinking": True}, {"enable_thinking": True, "thinking": True}, None),
        ({"thinking_budget": 20}, None, 20),
        ({"thinking_budget": 0}, {"enable_thinking": False, "thinking": False}, 0),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}, None),
        (
            {"reasoning_effort": "none"},
            {"reasoning_effort": "none", "enable_thinking": False, "thinking": False},
            None,
        ),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}, None),
        ({"think": False}, {"enable_thinking": False, "thinking": False}, None),
        ({"think": "low"}, {"reasoning_effort": "low"}, None),
        ({"reasoning_effort": "", "think": ""}, None, None),
        ({"documents": [{"text": "a"}]}, {"documents": [{"text": "a"}]}, None),
    ],
)
def test_thinking_is_a_matter_of_the_template_and_of_a_budget(
    fields: Any, options: Any, budget: int | None
) -> None:
    job = chat(**fields)
    assert job.prompts[0].template_options == options
    assert job.reasoning_budget == budget
    assert job.is_reasoning_split


def test_an_unknown_effort_is_refused() -> None:
    with pytest.raises(ValidationError):
        ChatBody(reasoning_effort="enormous")


def test_a_text_completion_has_no_thoughts_to_split_off() -> None:
    job = to_generate_request(CompletionBody(prompt="x"), GenerationDefaults(), "m")
    assert not job.is_reasoning_split


def test_earlier_thoughts_reach_the_template() -> None:
    for name in ("reasoning_content", "reasoning"):
        said = {"role": "assistant", "content": "a", name: "because"}
        job = chat(messages=[{"role": "user", "content": "hi"}, said])
        assert (job.prompts[0].messages or [])[1].reasoning_content == "because"


def test_tokens_are_counted_with_the_same_template() -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    body = TokenCountBody(messages=messages, tools=[TOOL], enable_thinking=False)
    prompt = to_token_count_request(body).prompt
    assert prompt.tools == [TOOL]
    assert prompt.template_options == {"enable_thinking": False, "thinking": False}
