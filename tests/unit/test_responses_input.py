"""A Responses body to a job: items, messages, tools, names of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.responses.items import to_items
from api.dialects.responses.messages import to_messages
from api.dialects.responses.record import to_record
from api.dialects.responses.schema import ResponseBody
from api.dialects.responses.tools import to_tool_fields
from api.dialects.responses.translate import NAMES, to_job
from api.web.errors import renamed
from jobs.contract.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.contract.grammars import GrammarKind
from jobs.contract.requests import FunctionCall, GenerateRequest, GenerationDefaults, Message

ADD: dict[str, Any] = {"type": "function", "name": "add", "parameters": {"type": "object"}}


def body(**fields: Any) -> ResponseBody:
    return ResponseBody.model_validate({"input": "hi", **fields})


def job_of(**fields: Any) -> GenerateRequest:
    given = body(**fields)
    return to_job(given, to_items(given.input, "x"), GenerationDefaults(), "demo")


def messages_of(*items: dict[str, Any], instructions: str | None = None) -> list[Any]:
    return to_messages(instructions, to_items(items, "x"))


def test_a_text_is_a_users_message() -> None:
    [item] = to_items("hi", "abc")
    assert item == {
        "id": "msg_0000abc",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_messages_need_no_type_and_their_parts_are_joined() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    said = [{"type": "output_text", "text": "c"}]
    assert messages_of(
        {"role": "user", "content": parts},
        {"type": "message", "role": "assistant", "content": said},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ) == [
        Message("user", "a\nb"),
        Message("assistant", "c"),
        Message("assistant", "no"),
    ]


def test_instructions_and_opening_system_items_are_one_message() -> None:
    assert messages_of(
        {"role": "developer", "content": "b"},
        {"role": "system", "content": "c"},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": "later"},
        instructions="a",
    ) == [
        Message("system", "a\n\nb\n\nc"),
        Message("user", "hi"),
        Message("system", "later"),
    ]


def test_calls_belong_to_one_assistants_message_and_their_outputs_follow() -> None:
    call = {"type": "function_call", "name": "add", "arguments": "{}"}
    output = {"type": "function_call_output"}
    user, assistant, first, second = messages_of(
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "…"},
        {"role": "assistant", "content": "Let me see."},
        {**call, "call_id": "c1"},
        {**call, "call_id": "c2"},
        {**output, "call_id": "c1", "output": "1"},
        {**output, "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
    )
    assert user.role == "user"
    assert assistant.content == "Let me see."
    assert [c.id for c in assistant.tool_calls] == ["c1", "c2"]
    assert assistant.tool_calls[0].function == FunctionCall("add", "{}")
    assert (first.tool_call_id, first.content) == ("c1", "1")
    assert (second.role, second.content) == ("tool", "2")


def test_thoughts_go_along_with_what_was_said_next() -> None:
    thoughts = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
    messages = messages_of(
        {"role": "user", "content": "hi"},
        {**thoughts, "summary": []},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "2 + 3"},
        thoughts,
        call,
        {"type": "function_call_output", "call_id": "c", "output": "5"},
        thoughts,
        {"role": "user", "content": "And?"},
    )
    told = [message.reasoning_content for message in messages]
    assert told == [None, "Hm.", None, "Hm.", None, None]


def test_a_call_without_a_message_before_it_makes_one() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
    _, assistant = messages_of({"role": "user", "content": "hi"}, call)
    assert (assistant.role, assistant.content) == ("assistant", None)


CUSTOM = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"}


@pytest.mark.parametrize(
    ("items", "name", "arguments", "output"),
    [
        ([CUSTOM, {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}],
         "patch", '{"input": "*** Begin"}', "done"),
        ([{"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}},
          {"type": "local_shell_call_output", "id": "c", "output": "a.py"}],
         "local_shell", '{"command": ["ls"]}', "a.py"),
        ([{"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
          {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a"}]}],
         "shell", '{"commands": ["ls"]}', '[{"stdout": "a"}]'),
        ([{"type": "apply_patch_call", "call_id": "c", "operation": {"path": "a"}},
          {"type": "apply_patch_call_output", "call_id": "c", "status": "completed"}],
         "apply_patch", '{"path": "a"}', "completed"),
        ([{"type": "mcp_call", "id": "c", "name": "ask", "arguments": "{}", "output": "x"}],
         "ask", "{}", "x"),
        ([CUSTOM, {"type": "custom_tool_call_output", "call_id": "c",
                   "output": [{"type": "input_text", "text": "a"}]}],
         "patch", '{"input": "*** Begin"}', "a"),
    ],
)  # fmt: skip
def test_calls_of_other_tools_are_told_as_calls_of_functions(
    items: Any, name: str, arguments: str, output: str
) -> None:
    assistant, tool = messages_of(*items)
    assert assistant.tool_calls[0].function == FunctionCall(name, arguments)
    assert (assistant.tool_calls[0].id, tool.tool_call_id, tool.content) == ("c", "c", output)


@pytest.mark.parametrize("kind", ["web_search_call", "mcp_list_tools", "compaction"])
def test_what_a_server_did_by_itself_is_kept_and_not_read(kind: str) -> None:
    done = {"type": kind, "id": "ws_1", "status": "completed", "action": {"query": "x"}}
    assert to_items([done], "x") == [done]
    hi = {"role": "user", "content": "hi"}
    assert messages_of(hi, done, {"role": "assistant", "content": "a"}) == [
        Message("user", "hi"),
        Message("assistant", "a"),
    ]


@pytest.mark.parametrize("tool", ["web_search", "custom", "namespace", "local_shell", "mcp", "x"])
def test_tools_of_other_kinds_are_left_out_unless_they_must_be_called(tool: str) -> None:
    other = {"type": tool, "name": "n", "tools": [ADD], "server_label": "s"}
    assert to_tool_fields(body(tools=[other])) == {}
    assert len(to_tool_fields(body(tools=[other, ADD]))["tools"]) == 1
    for choice in ({"type": tool, "name": "n"}, {"type": "function", "name": "n"}):
        with pytest.raises(InvalidRequestError) as caught:
            job_of(tools=[other, ADD], tool_choice=choice)
        assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user"}, "input[1].content"),
        ({"role": "king", "content": "x"}, "input[1].role"),
        ({"type": "web_search_cal"}, "input[1].type"),
        ({"type": "item_reference"}, "input[1].id"),
        ({"type": "custom_tool_call", "id": 5}, "input[1].id"),
        ({"type": ["message"]}, "input[1].type"),
        ({}, "input[1].type"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input[1].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[1].call_id"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input[1].content[0]"),
    ],
)
def test_a_wrong_item_is_named(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_items([{"role": "user", "content": "x"}, item], "x")
    assert caught.value.param == param
    assert param in caught.value.message or "parts" in caught.value.message


def test_functions_are_nested_as_a_chat_has_them() -> None:
    fields = to_tool_fields(body(tools=[{**ADD, "strict": True}], tool_choice="auto"))
    function = {"name": "add", "parameters": {"type": "object"}, "strict": True}
    assert fields["tools"] == [{"type": "function", "function": function}]
    assert fields["tool_choice"] == "auto"


def test_tools_of_other_kinds_are_left_out() -> None:
    tools = [{"type": "web_search"}, {"type": "local_shell"}, {"type": "custom", "name": "x"}, {}]
    fields = to_tool_fields(body(tools=tools, tool_choice="auto", parallel_tool_calls=False))
    assert fields == {}
    assert len(to_tool_fields(body(tools=[*tools, ADD]))["tools"]) == 1


def test_a_chosen_function_is_nested_too() -> None:
    fields = to_tool_fields(body(tools=[ADD], tool_choice={"type": "function", "name": "add"}))
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def test_allowed_tools_leave_out_the_others() -> None:
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    fields = to_tool_fields(body(tools=[ADD, {**ADD, "name": "other"}], tool_choice=choice))
    assert [tool["function"]["name"] for tool in fields["tools"]] == ["add"]
    assert fields["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**ADD, "parameters": 1}]}, "tools[0].parameters"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "x"}}, "tool_choice"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"top_k": -2}, "top_k"),
        ({"seed": "x"}, "seed"),
        ({"input": "half \ud83d"}, "input"),
    ],
)
def test_what_is_wrong_is_named_as_this_api_names_it(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        job_of(**fields)
    assert caught.value.param == param


def test_an_error_of_the_job_gets_the_name_too() -> None:
    error = renamed(ContextLengthExceededError("messages: too long", "messages[3].content"), NAMES)
    assert isinstance(error, ContextLengthExceededError)
    assert (error.message, error.param) == ("input: too long", "input")
    same = UnsupportedParameterError("top_k: no", "top_k")
    assert renamed(same, NAMES) is same
    assert renamed(ContextLengthExceededError("too long"), NAMES).param is None


def test_parameters_arrive_in_the_job() -> None:
    job = job_of(
        instructions="Be brief.", max_output_tokens=7, temperature=0.5, top_p=0.25, top_k=3, seed=1,
        stream=True, stop=["x"],
    )  # fmt: skip
    assert (job.max_tokens, job.stream, job.stop, job.api) == (7, True, ["x"], "chat")
    sampling = job.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (
        0.5, 0.25, 3, 1,
    )  # fmt: skip
    messages = job.prompts[0].messages
    assert messages is not None
    assert [(m.role, m.content) for m in messages] == [("system", "Be brief."), ("user", "hi")]


@pytest.mark.parametrize(
    ("fields", "num_logprobs"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
        ({"include": ["reasoning.encrypted_content"]}, None),
    ],
)
def test_log_probabilities_come_when_asked_for(
    fields: dict[str, Any], num_logprobs: int | None
) -> None:
    assert job_of(**fields).sampling.num_logprobs == num_logprobs


def test_a_schema_becomes_a_grammar() -> None:
    given = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    grammar = job_of(text={"format": given}).grammar
    assert grammar is not None
    assert (grammar.kind, grammar.text) == (GrammarKind.JSON_SCHEMA, '{"type": "object"}')
    assert job_of(text={"format": {"type": "text"}, "verbosity": "low"}).grammar is None


def test_the_record_repeats_the_request_with_its_defaults() -> None:
    given = body(tools=[ADD, {"type": "web_search"}], metadata={"a": "b"}, store=False)
    job = to_job(given, to_items("hi", "x"), GenerationDefaults(temperature=0.5), "demo")
    echo = to_record("resp_1", 123, given, job, []).echo
    assert echo["temperature"] == 0.5
    assert [tool["name"] for tool in echo["tools"]] == ["add"]
    assert (echo["metadata"], echo["store"], echo["tool_choice"]) == ({"a": "b"}, False, "auto")
    assert echo["text"] == {"format": {"type": "text"}, "verbosity": "medium"}
