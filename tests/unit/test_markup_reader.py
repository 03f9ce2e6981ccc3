"""Calls and thoughts read out of answers, never raising, never leaking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.contract.events import CalledTool, add_calls
from workers.engines.fake import FakeTokenizer
from workers.markup.dialects import Dialect
from workers.markup.output_format import layout_of
from workers.markup.reader import Delta, MarkupReader, Reading

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "s": {"type": "string"}},
            },
        },
    }
]
DATA = Path(__file__).parents[1] / "data" / "tool_dialects.json"
DIALECTS = {
    f"{one['parser']}-{number}" if number > 12 else one["parser"]: (one["template"], one["answer"])
    for number, one in enumerate(json.loads(DATA.read_text()))
}


def reader_of(
    template: str, stop: list[str] | None = None, is_single: bool = False
) -> MarkupReader:
    tokenizer = FakeTokenizer()
    reading = Reading(layout_of(Dialect.of(template, tokenizer), TOOLS), TOOLS, is_single)
    return MarkupReader(stop or [], reading, tokenizer, "job-1:0")


def read(reader: MarkupReader, text: str, *, is_cut: bool = False) -> Delta:
    total = Delta()
    for character in text:
        added = reader.feed(character)
        total.reasoning += added.reasoning
        total.text += added.text
        add_calls(total.calls, added.calls)
        if added.is_over:
            return total
    last = reader.finish(is_cut=is_cut)
    total.text += last.text
    add_calls(total.calls, last.calls)
    return total


@pytest.mark.parametrize("name", DIALECTS)
def test_each_dialect_is_found_in_its_template_and_read(name: str) -> None:
    template, answer = DIALECTS[name]
    shown = read(reader_of(template), "Well. " + answer)
    assert shown.text == "Well."
    (call,) = shown.calls
    assert call.name == "add"
    assert json.loads(call.arguments) == {"a": 1, "s": "x"}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_call_cut_anywhere_is_its_beginning_and_no_text(name: str) -> None:
    template, answer = DIALECTS[name]
    whole = read(reader_of(template), answer).calls[0].arguments
    for length in range(1, len(answer)):
        shown = read(reader_of(template), answer[:length], is_cut=True)
        assert shown.text in ("", answer[length - 1])
        for call in shown.calls:
            assert call.name == "add"
            assert whole.startswith(call.arguments)


@pytest.mark.parametrize(
    "payload",
    [
        "no json",
        "[]",
        "{}",
        "null",
        "[[[",
        '{"name": 1}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": {"a": NaN}}',
        '{"name": "f", "arguments": {"a": "\\ud800"}}',
        '{"name": "f\\ud800", "arguments": {}}',
        '{"name": "f", "id": "\\udfff", "arguments": {}}',
    ],
)
def test_what_is_no_call_comes_back_as_text(payload: str) -> None:
    shown = read(reader_of("<tool_call>"), f"<tool_call>\n{payload}\n</tool_call>")
    assert shown.calls == []
    assert shown.text == payload


def test_llamas_bare_objects_are_calls_where_an_answer_begins_with_one() -> None:
    call = '{"name": "add", "parameters": {"a": 1}}'
    shown = read(reader_of("<|python_tag|>"), f"{call}; {call}")
    assert [(c.name, c.arguments) for c in shown.calls] == [("add", '{"a": 1}')] * 2
    for text in (f"Call {call}", '{"name": "Bob"}', '{"names": []}'):
        assert read(reader_of("<|python_tag|>"), text) == Delta(text=text)


def test_the_channels_of_harmony_are_thoughts_and_content() -> None:
    reader = reader_of("<|start|><|channel|><|message|>")
    text = (
        "<|channel|>analysis<|message|>They greet.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello there!"
    )
    shown = read(reader, text)
    assert (shown.reasoning, shown.text, shown.calls) == ("They greet.", "Hello there!", [])


def test_an_end_token_may_be_the_end_of_a_call() -> None:
    reader = reader_of("<|start|><|channel|><|message|>")
    begun = reader.feed(" to=functions.add<|channel|>commentary json<|message|>{}")
    assert (begun.text, [call.name for call in begun.calls]) == ("", ["add", ""])
    assert reader.feed("<|call|>") == Delta()


def test_calls_are_numbered_and_have_the_same_ids_when_read_again() -> None:
    answer = DIALECTS["json_tools"][1] * 2
    first, second = read(reader_of("<tool_call>"), answer).calls
    assert (first.index, second.index) == (0, 1)
    assert first.id != second.id
    assert read(reader_of("<tool_call>"), answer).calls == [first, second]


def test_an_id_of_the_models_own_is_kept() -> None:
    template, answer = DIALECTS["kimi_k2"]
    assert read(reader_of(template), answer).calls == [
        CalledTool(0, "functions.add:0", "add", '{"a": 1, "s": "x"}')
    ]


def test_an_answer_may_be_over_with_its_first_call() -> None:
    reader = reader_of("<tool_call>", is_single=True)
    shown = read(reader, DIALECTS["json_tools"][1] * 2)
    assert len(shown.calls) == 1


def test_stop_strings_count_in_the_content_only() -> None:
    template = "<tool_call></think>"
    reader = reader_of(template, stop=["x"])
    shown = read(reader, "<think>x</think>" + DIALECTS["json_tools"][1] + " yes x no")
    assert (shown.reasoning, shown.text, len(shown.calls)) == ("x", "yes ", 1)
    assert reader.stop == "x"


def test_reading_calls_needs_neither_mlx_nor_transformers() -> None:
    code = (
        "import sys; import workers.markup.output_format\n"
        "bad = {'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
