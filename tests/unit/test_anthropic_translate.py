"""Bodies of /v1/messages to jobs: parameters, tools, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.dialects.anthropic.errors import error_body
from api.dialects.anthropic.schema import MessagePromptBody
from api.dialects.anthropic.tools import to_tool_fields
from api.dialects.anthropic.translate import to_job, to_prompt
from api.web.errors import problem_of
from jobs.contract.errors import JobError
from jobs.contract.requests import GenerateRequest, GenerationDefaults, ToolUse
from tests.helpers.anthropic_bodies import ADD, CALL, USER, read, result, text, turn

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}


def job(**fields: Any) -> GenerateRequest:
    return to_job(read(**fields), GenerationDefaults(), "demo")


def refusal(**fields: Any) -> Any:
    """The error's message and parameter, as a client gets them."""
    with pytest.raises((JobError, ValidationError)) as caught:
        job(**fields)
    error = caught.value
    if isinstance(error, ValidationError):
        places = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
        return problem_of(RequestValidationError(places))
    return problem_of(error)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [turn("user", text("a"), IMAGE)]}, "messages[0].content[1]"),
        ({"messages": [turn("user", {"type": "document"})]}, "messages[0].content[0]"),
        ({"messages": [turn("user", result([IMAGE]))]}, "messages[0].content[0].content[0]"),
        ({"messages": [turn("user", "bare")]}, "messages[0].content[0]"),
        ({"messages": [turn("user", CALL)]}, "messages[0].content[0]"),
        ({"messages": [USER, turn("assistant", result("1"))]}, "messages[1].content[0]"),
        ({"messages": [turn("user", {"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [turn("user", {**CALL, "input": "1"})]}, "messages[0].content[0].input"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": [USER, turn("assistant", CALL)]}, "messages"),
        ({"system": [IMAGE]}, "system[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": -2}, "top_k"),
        ({"stop_sequences": ["x" * 257]}, "stop_sequences"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"seed": "1"}, "seed"),
        ({"min_p": 2}, "min_p"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"tools": [{"name": "add"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [ADD], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "sub"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(fields: Any, param: str) -> None:
    problem = refusal(**fields)
    assert (problem.status, problem.param) == (400, param)


def test_a_block_that_nothing_can_read_is_named() -> None:
    message = refusal(messages=[turn("user", IMAGE)]).message
    assert message.startswith("messages[0].content[0]: blocks of type 'image' are not supported")


def test_parameters_reach_the_job() -> None:
    found = job(
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END"],
        stream=True,
        seed=5,
        min_p=0.1,
        adapter_name="lora",
        metadata={"user_id": "u"},
        service_tier="auto",
        context_management={"edits": []},
    )
    assert (found.max_tokens, found.stop, found.stream, found.adapter) == (7, ["END"], True, "lora")
    sampling = found.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 3)
    assert (sampling.seed, sampling.min_p) == (5, 0.1)
    assert (found.api, found.model) == ("chat", "demo")


def test_members_that_only_anthropic_knows_change_nothing() -> None:
    unknown = {
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "betas": ["context-management-2025-06-27"],
        "cache_control": {"type": "ephemeral"},
        "inference_geo": "eu",
        "speed": "fast",
        "output_config": {"effort": None, "task_budget": {"total": 5}},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "tools": [{**ADD, "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}],
    }
    assert job(**unknown, seed=1).prompts[0].messages == job(seed=1).prompts[0].messages


def test_a_models_defaults_hold_where_the_body_says_nothing() -> None:
    found = to_job(read(), GenerationDefaults(temperature=0.2, top_p=0.3), "demo")
    assert (found.sampling.temperature, found.sampling.top_p) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("thinking", "is_on", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, True, 2048),
        ({"type": "adaptive"}, True, None),
        ({"type": "disabled"}, False, None),
        ({"type": "between_tools"}, False, None),
    ],
)
def test_thinking_is_asked_for_as_in_a_chat(thinking: Any, is_on: bool, budget: Any) -> None:
    found = job(thinking=thinking)
    assert found.prompts[0].template_options["enable_thinking"] is is_on
    assert found.reasoning_budget == budget
    assert found.is_reasoning_split


def test_without_a_word_about_thinking_it_is_up_to_the_template() -> None:
    found = job()
    assert (found.prompts[0].template_options, found.reasoning_budget) == (None, None)


def test_effort_reaches_the_template() -> None:
    found = job(output_config={"effort": "high"})
    assert found.prompts[0].template_options == {"reasoning_effort": "high"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolUse()),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolUse(True, True)),
        ({"type": "tool", "name": "add"}, ToolUse(True, True, "add")),
        ({"type": "none"}, None),
    ],
)
def test_the_job_knows_how_tools_may_be_used(choice: Any, expected: Any) -> None:
    assert job(tools=[ADD], tool_choice=choice).tool_use == expected


def test_a_schema_for_the_output_becomes_a_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    given = {"type": "json_schema", "schema": schema}
    found = job(output_config={"format": given})
    assert found.grammar == job(output_format=given).grammar
    assert '"a"' in found.grammar.text


def test_tools_have_a_chats_form() -> None:
    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    marked = {**ADD, "type": "custom", "cache_control": {"type": "ephemeral"}}
    assert to_tool_fields(read(tools=[marked]))["tools"] == [
        {"type": "function", "function": function}
    ]


def test_tools_that_run_at_anthropic_are_left_out() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    assert len(to_tool_fields(read(tools=[search, ADD]))["tools"]) == 1
    assert to_tool_fields(read(tools=[search], tool_choice={"type": "auto"})) == {}
    # A call that has to be made is still refused when there is nothing to call.
    any_call = to_tool_fields(read(tools=[search], tool_choice={"type": "any"}))
    assert any_call == {"tool_choice": "required"}


@pytest.mark.parametrize(
    ("choice", "expected", "is_parallel"),
    [
        (None, None, None),
        ({"type": "auto"}, "auto", None),
        ({"type": "any"}, "required", None),
        ({"type": "none"}, "none", None),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "auto", "disable_parallel_tool_use": False}, "auto", None),
        (
            {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
            {"type": "function", "function": {"name": "add"}},
            False,
        ),
    ],
)
def test_the_choice_of_tools_has_a_chats_form(choice: Any, expected: Any, is_parallel: Any) -> None:
    found = to_tool_fields(read(tools=[ADD], tool_choice=choice))
    assert found["tool_choice"] == expected
    assert found.get("parallel_tool_calls") is is_parallel


def test_the_count_is_of_the_very_prompt_that_the_job_would_have() -> None:
    fields = {
        "messages": [USER, turn("assistant", CALL), turn("user", result("3"))],
        "system": "be brief",
        "tools": [ADD],
    }
    counted = to_prompt(MessagePromptBody.model_validate(fields), "demo")
    assert counted == job(**fields).prompts[0]
    assert counted.tools is not None


def test_a_conversation_that_ends_with_the_assistant_goes_on_there() -> None:
    turns = [USER, turn("assistant", text("The"))]
    counted = to_prompt(MessagePromptBody.model_validate({"messages": turns}), "demo")
    assert counted.messages[-1].content == "The"
    assert counted.is_continued
    assert job(messages=turns).prompts[0] == counted
    assert not job(messages=[USER]).prompts[0].is_continued


def test_an_error_has_the_parameters_name_of_this_api() -> None:
    body = error_body(refusal(stop_sequences=["x" * 257])).decode()
    assert '"message":"stop_sequences: a stop string has' in body
    assert '"param":"stop_sequences"' in body
    assert '"type":"invalid_request_error"' in body


def test_a_client_learns_that_it_has_to_send_the_whole_conversation() -> None:
    body = error_body(refusal(thread={"type": "create"})).decode()
    assert '"error_code":"thread_unsupported_request"' in body
