"""Anthropic's turns as a chat: blocks, tools' results, thoughts, system prompts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.anthropic.messages import to_messages
from api.dialects.anthropic.translate import to_job
from jobs.contract.requests import FunctionCall, GenerationDefaults, Message, ToolCall
from tests.helpers.anthropic_bodies import CALL, USER, read, result, text, turn


def chat(*turns: Any, system: Any = None) -> list[Any]:
    """The chat's messages as (role, content) pairs."""
    body = read(messages=list(turns), system=system)
    found = to_messages(body.system, body.messages)
    return [(message.role, message.content) for message in found]


def test_a_text_is_short_for_one_block() -> None:
    assert chat(USER) == chat(turn("user", text("hi"))) == [("user", "hi")]


def test_blocks_are_joined_by_lines_and_hints_for_caches_ignored() -> None:
    marked = text("b", cache_control={"type": "ephemeral"})
    assert chat(turn("user", text("a"), marked)) == [("user", "a\nb")]


def test_turns_of_one_role_in_a_row_become_one() -> None:
    turns = [USER, turn("user", text("there")), turn("assistant", text("a")), turn("assistant")]
    assert chat(*turns, USER) == [("user", "hi\n\nthere"), ("assistant", "a"), ("user", "hi")]


@pytest.mark.parametrize("system", ["be brief", [text("be"), text("brief")]])
def test_the_system_prompt_comes_first(system: Any) -> None:
    assert chat(USER, system=system)[0][0] == "system"
    assert chat(USER, system=system)[0][1].split() == ["be", "brief"]


@pytest.mark.parametrize(
    "system",
    [
        "x-anthropic-billing-header: cc_version=2.1; cch=1f3a;\nbe brief",
        [text("x-anthropic-billing-header: cch=1f3a;"), text("be brief")],
        [text("x-anthropic-billing-header: cch=1f3a;\n\n"), text("be brief")],
        [text("x-anthropic-billing-header: cch=1f3a;\nbe brief")],
    ],
)
def test_the_line_that_changes_with_every_request_is_not_shown_to_the_model(system: Any) -> None:
    assert chat(USER, system=system) == [("system", "be brief"), ("user", "hi")]


def test_a_system_prompt_of_that_line_alone_is_none() -> None:
    assert chat(USER, system=[text("x-anthropic-billing-header: cch=1;")]) == [("user", "hi")]


def test_system_turns_that_open_the_conversation_join_the_system_prompt() -> None:
    first = {"role": "system", "content": "and kind"}
    assert chat(first, USER, system="be brief")[0] == ("system", "be brief\n\nand kind")


def test_a_later_system_turn_stays_at_its_place_in_the_users_turn() -> None:
    """Hoisted it would change the prompt's beginning, which the prompt cache keeps."""
    later = {"role": "system", "content": "be kind"}
    note = "<system>\nbe kind\n</system>"
    assert chat(USER, later, system="be brief") == [
        ("system", "be brief"),
        ("user", f"hi\n\n{note}"),
    ]
    answered = turn("assistant", text("a"))
    assert chat(USER, answered, later) == [("user", "hi"), ("assistant", "a"), ("user", note)]


def test_thoughts_are_left_to_the_template_which_knows_those_it_needs() -> None:
    thoughts = [{"type": "thinking", "thinking": t, "signature": "s"} for t in ("hm", "so")]
    redacted = {"type": "redacted_thinking", "data": "xx"}
    body = read(messages=[USER, turn("assistant", *thoughts, redacted, text("a")), USER])
    found = to_messages(body.system, body.messages)[1]
    assert found == Message("assistant", "a", reasoning_content="hm\nso")
    found = to_job(body, GenerationDefaults(), "demo").prompts[0].messages[1]
    assert found.reasoning_content == "hm\nso"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "code_execution_tool_result", "tool_use_id": "s1", "content": {"stdout": "1"}},
        {"type": "mcp_tool_use", "id": "m1", "name": "ask", "server_name": "s", "input": {}},
        {"type": "compaction", "content": "what was said"},
        {"type": "container_upload", "file_id": "f1"},
    ],
)
def test_what_ran_or_is_kept_at_anthropic_is_left_out(block: Any) -> None:
    turns = [USER, turn("assistant", block, text("a")), turn("user", block, text("b"))]
    assert chat(*turns) == [("user", "hi"), ("assistant", "a"), ("user", "b")]


def test_a_turn_of_thoughts_alone_is_none() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert chat(USER, turn("assistant", thought), USER) == [("user", "hi\n\nhi")]


def test_a_tool_loop_becomes_calls_and_their_results() -> None:
    turns = [USER, turn("assistant", text("I add."), CALL), turn("user", result("3"), text("so?"))]
    body = read(messages=turns)
    call = ToolCall("toolu_1", FunctionCall("add", '{"a": 1}'))
    assert to_messages(body.system, body.messages)[1:] == [
        Message("assistant", "I add.", tool_calls=[call]),
        Message("tool", "3", tool_call_id="toolu_1"),
        Message("user", "so?"),
    ]
    message = to_job(body, GenerationDefaults(), "demo").prompts[0].messages[1]
    assert message.tool_calls[0].function.arguments == '{"a": 1}'


def test_results_stand_right_behind_their_calls_wherever_they_were_written() -> None:
    calls = turn("assistant", CALL)
    in_front = [USER, calls, turn("user", text("so?"), result("3"))]
    expected = [("user", "hi"), ("assistant", ""), ("tool", "3"), ("user", "so?")]
    assert chat(*in_front) == expected
    between = [USER, calls, turn("user", text("so?")), turn("user", result("3"))]
    assert chat(*between) == expected


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (result("3"), "3"),
        (result([text("3"), text("4")]), "3\n4"),
        (result([]), ""),
        (result(None), ""),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, ""),
        (result("no such city", is_error=True), "Error: no such city"),
    ],
)
def test_a_result_is_text_and_says_when_it_is_an_error(block: Any, expected: str) -> None:
    assert chat(USER, turn("assistant", CALL), turn("user", block))[-1] == ("tool", expected)


WORDS = st.text(max_size=4)
THOUGHT = st.just({"type": "thinking", "thinking": "hm"})
TURNS = st.lists(
    st.one_of(
        st.lists(WORDS.map(text) | WORDS.map(result), max_size=3).map(lambda b: turn("user", *b)),
        st.lists(WORDS.map(text) | st.just(CALL) | THOUGHT, max_size=3).map(
            lambda b: turn("assistant", *b)
        ),
        WORDS.map(lambda word: turn("system", text(word))),
    ),
    min_size=1,
    max_size=8,
)


@given(TURNS)
def test_no_chat_has_two_turns_of_one_speaker_in_a_row(turns: Any) -> None:
    roles = [role for role, _ in chat(*turns)]
    assert "system" not in roles[1:]
    pairs = list(itertools.pairwise(roles))
    assert ("user", "user") not in pairs
    assert ("assistant", "assistant") not in pairs
