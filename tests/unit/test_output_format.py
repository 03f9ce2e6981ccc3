"""What answers are held to: calls to their schemas, thoughts to a budget, and what follows them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from jobs.contract.errors import GrammarError, InvalidRequestError, UnsupportedParameterError
from jobs.contract.events import CalledTool, add_calls
from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.requests import ToolUse
from tests.helpers.grammars import LETTERS, RUNS_FULL
from tests.helpers.samples import generate
from workers.engines.base import Constraint
from workers.engines.fake import FakeTokenizer
from workers.markup.calls.rules import marker
from workers.markup.output_format import OutputFormat, OutputFormats

ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "s": {"type": "string"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}
BARE: Any = {"type": "function", "function": {"name": "now"}}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 12}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "add", "arguments": {"b": 12}}\n</tool_call>'
CODER = "<tool_call>\n<function=add>\n<parameter=a>\n12\n</parameter>\n</function>\n</tool_call>"
HARMONY = "<|start|><|channel|><|message|>"
COMMENTARY = "<|channel|>commentary json<|message|>"
JSON_A = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "object", "required": ["x"]}')


def form(
    template: str = "<tool_call>", prompt: str = "hi", tools: Any = (ADD, BARE), **fields: Any
) -> OutputFormat:
    request = generate(**{"tool_use": ToolUse(), **fields})
    forms = OutputFormats(FakeTokenizer(), template)
    return forms.of(request, list(prompt.encode()), list(tools))


def walk(constraint: Constraint | None, text: str) -> str:
    """As much of ``text`` as may be written, byte by byte."""
    assert constraint is not None
    for place, byte in enumerate(text.encode()):
        mask = constraint.allowed()
        if mask is not None and not mask[byte]:
            return text[:place]
        constraint.accept(byte)
    return text


def may_end(constraint: Constraint | None) -> bool:
    mask = constraint.allowed() if constraint is not None else None
    return mask is None or bool(mask[list(FakeTokenizer.end_ids)].any())


@pytest.mark.parametrize(
    ("template", "text", "written"),
    [
        ("<tool_call>", f"free text {CALL}\n{CALL} more", None),
        ("<tool_call>", f"so {WRONG}", 'so <tool_call>\n{"name": "add", "arguments": {"'),
        ("<tool_call>", '<tool_call>{"name": "other"', '<tool_call>{"name": "'),
        ("<tool_call>", '<tool_call>{"name": "now", "arguments": {"any": [1]}}</tool_call>', None),
        ("<tool_call>\n<function=", f"free {CODER} more", None),
        ("<tool_call>\n<function=", "<tool_call><function=sub", "<tool_call><function="),
        ("<|python_tag|>", 'so <|python_tag|>{"name": "add", "parameters": {"a": 1}}', None),
        (HARMONY, f' to=functions.add{COMMENTARY}{{"a": 1}}<|call|>', None),
        (HARMONY, f' to=functions.add{COMMENTARY}{{"b": 1}}', f' to=functions.add{COMMENTARY}{{"'),
    ],
)
def test_a_call_that_the_model_makes_by_itself_is_held_to_its_tool(
    template: str, text: str, written: str | None
) -> None:
    assert walk(form(template).new_constraint(), text) == (written or text)


def test_a_forced_call_is_all_that_may_be_written() -> None:
    use = ToolUse(is_required=True, name="add")
    constraint = form(tool_use=use).new_constraint()
    assert not may_end(constraint)
    assert walk(constraint, CALL) == CALL
    assert may_end(constraint)
    assert walk(form(tool_use=use).new_constraint(), "Hello") == ""
    assert walk(form(tool_use=use).new_constraint(), '<tool_call>{"name": "now"').endswith('"')


def test_several_calls_may_be_forced() -> None:
    constraint = form(tool_use=ToolUse(is_required=True)).new_constraint()
    assert walk(constraint, f"{CALL}\n{CALL}") == f"{CALL}\n{CALL}"


def test_a_model_whose_way_of_calling_nobody_knows_is_made_to_write_an_object() -> None:
    answer = form("{{ tools }}", tool_use=ToolUse(is_required=True))
    text = '{"name": "add", "arguments": {"a": 12}}'
    assert walk(answer.new_constraint(), text) == text
    assert walk(answer.new_constraint(), "Hello") == ""
    calls: list[CalledTool] = []
    add_calls(calls, answer.reader("j").feed(text).calls)
    assert [(call.name, call.arguments) for call in calls] == [("add", '{"a": 12}')]
    with pytest.raises(UnsupportedParameterError) as caught:
        form("{{ messages }}", tool_use=ToolUse(is_required=True))
    assert caught.value.param == "tool_choice"


def test_an_answer_is_json_or_a_call_where_both_are_asked_for() -> None:
    answer = form(grammar=JSON_A)
    assert walk(answer.new_constraint(), CALL) == CALL
    assert walk(answer.new_constraint(), '{"x": 1}') == '{"x": 1}'
    assert walk(answer.new_constraint(), "no") == ""
    with pytest.raises(UnsupportedParameterError) as caught:
        form(grammar=Grammar(GrammarKind.REGEX, "a", "regex"))
    assert caught.value.param == "regex"


def test_of_a_schema_only_what_cannot_be_held_is_left_out() -> None:
    odd = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}},
           "additionalProperties": False}  # fmt: skip
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": odd}}
    for fields in ({}, {"tool_use": ToolUse(is_required=True)}):
        constraint = form(tools=[tool, ADD], **fields).new_constraint()
        assert walk(constraint, '<tool_call>{"name": "f", "arguments": {"b') == (
            '<tool_call>{"name": "f", "arguments": {"'
        )
        assert walk(form(tools=[tool, ADD], **fields).new_constraint(), WRONG) != WRONG
    strict = {**tool, "function": {**tool["function"], "strict": True}}
    with pytest.raises(InvalidRequestError) as caught:
        form(tools=[strict]).new_constraint()
    assert caught.value.param == "tools"
    assert "uniqueItems" in caught.value.message


def test_a_schema_that_contradicts_itself_frees_no_other_tool() -> None:
    wrong = {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": wrong}}
    assert walk(form(tools=[tool, ADD]).new_constraint(), WRONG) != WRONG
    with pytest.raises(InvalidRequestError):
        form(tools=[tool, ADD], tool_use=ToolUse(is_required=True)).new_constraint()


def test_arguments_have_to_be_an_object() -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(InvalidRequestError) as caught:
        form(tools=[tool], tool_use=ToolUse(is_required=True))
    assert caught.value.param == "tools[0].function.parameters"


def test_a_schema_may_refer_to_its_own_definitions() -> None:
    schema = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/point"}},
        "required": ["p"],
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer"}},
                            "required": ["x"], "additionalProperties": False}},
    }  # fmt: skip
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    text = json.dumps({"name": "f", "arguments": {"p": {"x": 1}}})
    use = ToolUse(is_required=True)
    assert walk(form(tools=[tool], tool_use=use).new_constraint(), f"<tool_call>{text}") != ""
    coder = "<tool_call><function=f>\n<parameter=p>\n" + '{"x": 1}' + "\n</parameter>\n</function>"
    template = "<tool_call>\n<function="
    assert walk(form(template, tools=[tool], tool_use=use).new_constraint(), coder) == coder


def test_a_coders_texts_and_choices_are_written_bare() -> None:
    properties = {"s": {"type": "string"}, "u": {"enum": ["C", "F"]}, "n": {"type": "number"}}
    parameters = {"type": "object", "properties": properties, "required": ["s", "u"]}
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    text = (
        "<tool_call>\n<function=f>\n<parameter=s>\nany <b>\ntext\n</parameter>\n"
        "<parameter=u>\nC\n</parameter>\n<parameter=n>\n-1.5\n</parameter>\n</function>\n</tool_call>"
    )
    template = "<tool_call>\n<function="
    assert walk(form(template, tools=[tool]).new_constraint(), text) == text
    wrong = text.replace("\nC\n", "\nK\n")
    assert walk(form(template, tools=[tool]).new_constraint(), wrong).endswith("<parameter=u>\n")


def thinking(prompt: str = "hi <think>\n", **fields: Any) -> OutputFormat:
    fields = {"tool_use": None, "is_reasoning_split": True, **fields}
    return form("<think></think><tool_call>", prompt, **fields)


def test_a_grammar_begins_where_the_thoughts_end() -> None:
    answer = thinking(grammar=JSON_A)
    text = 'hm, {} no.\n</think>\n\n{"x": 1}'
    assert walk(answer.new_constraint(), text) == text
    assert walk(answer.new_constraint(), "</think>no") == "</think>"
    assert walk(thinking("hi", grammar=JSON_A).new_constraint(), "hm") == ""


def test_thoughts_before_a_required_form_do_not_end_the_answer() -> None:
    constraint = thinking(grammar=JSON_A).new_constraint()
    assert not may_end(constraint)
    assert walk(constraint, 'hm</think>{"x": 1}').endswith("}")
    assert may_end(constraint)
    assert may_end(thinking(reasoning_budget=9).new_constraint())


def test_harmony_has_its_content_behind_a_channel() -> None:
    answer = form(HARMONY, tool_use=None, is_reasoning_split=True, grammar=JSON_A)
    text = '<|channel|>final<|message|>{"x": 1}'
    assert walk(answer.new_constraint(), text) == text
    assert answer.reader("j").feed(text).text == '{"x": 1}'


def test_a_marker_of_control_tokens_is_written_by_their_numbers() -> None:
    written = marker("<|im_start|>call<|im_end|>", FakeTokenizer())
    assert written == '<|257|> "call" <|258|>'
    assert marker("", FakeTokenizer()) == ""


def test_a_forced_call_comes_after_the_thoughts() -> None:
    answer = thinking(tool_use=ToolUse(is_required=True))
    text = f"hm\n</think>\n\n{CALL}"
    assert walk(answer.new_constraint(), text) == text


@pytest.mark.parametrize("budget", [0, 3])
def test_thoughts_end_when_their_budget_is_spent(budget: int) -> None:
    constraint = thinking(reasoning_budget=budget).new_constraint()
    assert constraint is not None
    written = b""
    for _ in range(budget + len("\n</think>")):
        mask = constraint.allowed()
        byte = ord("x") if mask is None else int(np.flatnonzero(mask)[0])
        written += bytes([byte])
        constraint.accept(byte)
    assert written.decode() == "x" * budget + "\n</think>"
    assert constraint.allowed() is None


def test_thoughts_that_the_model_begins_itself_have_the_budget_too() -> None:
    constraint = thinking("hi", reasoning_budget=2).new_constraint()
    assert walk(constraint, "<think>abc") == "<think>ab"
    assert walk(constraint, "\n</think>yes") == "\n</think>yes"


def test_plain_text_is_held_to_nothing() -> None:
    assert thinking().new_constraint() is None
    assert form("{{ messages }}", tool_use=None).new_constraint() is None


WIDE = {262: b">.", 263: b'>\n{"'}


class WideTokenizer(FakeTokenizer):
    """Has tokens that end a marker and go on."""

    def piece(self, token_id: int) -> bytes:
        return WIDE.get(token_id) or super().piece(token_id)


def after_thoughts(last: int) -> Constraint | None:
    """What the answer is held to after thoughts whose last token is that one."""
    request = generate(grammar=JSON_A, is_reasoning_split=True)
    forms = OutputFormats(WideTokenizer(), "<think></think><tool_call>")
    constraint = forms.of(request, list(b"hi <think>\n"), []).new_constraint()
    assert walk(constraint, "hm</think") == "hm</think"
    assert constraint is not None
    constraint.accept(last)
    return constraint


def test_a_token_that_ends_the_thoughts_may_begin_the_answer() -> None:
    assert walk(after_thoughts(263), 'x": 1}') == 'x": 1}'


def test_one_that_begins_the_answer_with_what_its_grammar_forbids_is_an_error() -> None:
    with pytest.raises(GrammarError) as caught:
        after_thoughts(262)
    assert caught.value.param == "response_format"


def test_a_grammar_that_breaks_down_behind_the_thoughts_is_an_error() -> None:
    constraint = thinking(grammar=RUNS_FULL).new_constraint()
    assert walk(constraint, "hm</think>") == "hm</think>"
    with pytest.raises(GrammarError) as caught:
        walk(constraint, LETTERS.decode())
    assert caught.value.param == "grammar"


RECIPIENTS = "recipient >>>"
ADDED = 'add\n{"a": 12}'


def said(found: OutputFormat, text: str) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls of an answer that arrives character by character."""
    reader = found.reader("x")
    content, calls = "", list[CalledTool]()
    deltas = [*map(reader.feed, text), reader.finish(is_cut=False)]
    for delta in deltas:
        content += delta.text
        add_calls(calls, delta.calls)
    return content, [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("prompt", ["hi>>>", "hi"])
@pytest.mark.parametrize(
    ("text", "content", "num_calls"),
    [
        ("all\nHello!", "Hello!", 0),
        (ADDED, "", 1),
        (f"{ADDED}\n>>>{ADDED}", "", 2),
        (f"all\nI add.\n>>>{ADDED}", "I add.", 1),
        (f"{ADDED}>>>all\nDone.", "Done.", 1),
    ],
)
def test_an_answer_may_begin_inside_a_marker_that_its_prompt_has_opened(
    prompt: str, text: str, content: str, num_calls: int
) -> None:
    written = text if prompt.endswith(">>>") else f">>>{text}"
    expected = (content, [("add", '{"a": 12}')] * num_calls)
    free = form(RECIPIENTS, prompt)
    assert walk(free.new_constraint(), written) == written
    assert said(free, written) == expected
    forced = form(RECIPIENTS, prompt, tool_use=ToolUse(is_required=True)).new_constraint()
    assert (walk(forced, written) == written) == (not content)
    if not num_calls:
        assert said(form(RECIPIENTS, prompt, tool_use=None), written) == expected


@pytest.mark.parametrize("prompt", ["hi>>>", "hi"])
def test_a_schema_of_the_answer_comes_after_the_head_of_content(prompt: str) -> None:
    text = 'all\n{"x":1}'
    written = text if prompt.endswith(">>>") else f">>>{text}"
    for use in (None, ToolUse()):
        found = form(RECIPIENTS, prompt, tool_use=use, grammar=JSON_A)
        assert walk(found.new_constraint(), written) == written
        assert said(found, written) == ('{"x":1}', [])


def test_what_a_prompt_has_opened_is_no_text_of_the_answer() -> None:
    assert said(form(RECIPIENTS, "hi>>>", tool_use=None), "") == ("", [])
    assert said(form(RECIPIENTS, "hi>>>"), "al") == ("al", [])
