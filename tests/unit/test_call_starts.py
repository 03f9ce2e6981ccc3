"""Where a call starts: at its token, where the vocabulary has one, or before a tool's name."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract.events import CalledTool, add_calls
from jobs.contract.requests import ToolUse
from tests.helpers.samples import generate
from workers.engines.fake import FakeTokenizer
from workers.markup.output_format import OutputFormat, OutputFormats

_SCHEMA = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
ADD: Any = {"type": "function", "function": {"name": "add", "parameters": _SCHEMA}}
K3 = ("<|open|>", "<|close|>", "<|sep|>")
COHERE = ("<|START_ACTION|>", "<|END_ACTION|>")
MISTRAL = ("[TOOL_CALLS]", "[ARGS]")
CALLS = [
    (
        K3,
        '<|open|>tools<|sep|><|open|>call tool="add" index="1"<|sep|><|open|>argument key="a" '
        'type="object"<|sep|>1<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    ),
    (
        COHERE,
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "add", "parameters": {"a": 1}}]'
        "<|END_ACTION|>",
    ),
    (MISTRAL, '[TOOL_CALLS]add[ARGS]{"a": 1}'),
]


class Marked(FakeTokenizer):
    """Has some control tokens more."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._ids = {text: 263 + number for number, text in enumerate(texts)}

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        for marker, token_id in self._ids.items() if parse_special else ():
            before, found, after = text.partition(marker)
            if found:
                rest = self.encode(after, add_special=False, parse_special=True)
                start = self.encode(before, add_special=False, parse_special=True)
                return [*start, token_id, *rest]
        return super().encode(text, add_special=False, parse_special=parse_special)

    def control_text(self, token_id: int) -> str:
        texts = {token_id: text for text, token_id in self._ids.items()}
        return texts.get(token_id, "") or super().control_text(token_id)


def answered(found: OutputFormat, ids: list[int]) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls of an answer of these tokens, each of which its constraint allows."""
    constraint, reader = found.new_constraint(), found.reader("x")
    assert constraint is not None
    content, calls = "", list[CalledTool]()
    for token_id in ids:
        mask = constraint.allowed()
        assert mask is None or mask[token_id], (content, calls)
        constraint.accept(token_id)
        piece = found.tokenizer.piece(token_id) or reader.control_piece(token_id, is_end=False)
        delta = reader.feed(piece.decode())
        content += delta.text
        add_calls(calls, delta.calls)
    last = reader.finish(is_cut=False)
    add_calls(calls, last.calls)
    return content + last.text, [(call.name, call.arguments) for call in calls]


def form(template: str, tokenizer: FakeTokenizer, **use: Any) -> OutputFormat:
    request = generate(tool_use=ToolUse(**use))
    return OutputFormats(tokenizer, template).of(request, list(b"hi"), [ADD])


@pytest.mark.parametrize(("tokens", "call"), CALLS)
def test_a_start_that_is_a_token_counts_only_as_that_token(
    tokens: tuple[str, ...], call: str
) -> None:
    tokenizer = Marked(tokens)
    template = f"{''.join(tokens)} tools"
    as_token = tokenizer.encode(f"So: {call}", add_special=False, parse_special=True)
    as_text = tokenizer.encode(f"Write {call}!", add_special=False, parse_special=False)
    free = form(template, tokenizer)
    assert answered(free, as_token) == ("So:", [("add", '{"a": 1}')])
    assert answered(free, as_text) == (f"Write {call}!", [])
    assert answered(free, as_text + as_token)[1] == [("add", '{"a": 1}')]


@pytest.mark.parametrize(("tokens", "call"), CALLS)
def test_without_the_token_in_the_vocabulary_it_counts_as_text(
    tokens: tuple[str, ...], call: str
) -> None:
    found = form(f"{''.join(tokens)} tools", FakeTokenizer())
    assert answered(found, list(f"So: {call}".encode())) == ("So:", [("add", '{"a": 1}')])


@pytest.mark.parametrize(
    "text", [">>> add(1, 2)\n3", ">>>import this\n", "a >>> b", ">>>add", ">>>other\n{}", "x>>>"]
)
def test_a_start_that_programs_use_too_counts_only_before_a_tools_name(text: str) -> None:
    found = form("recipient >>>", FakeTokenizer())
    said = f">>>all\nSee: {text}"
    assert answered(found, list(said.encode())) == (f"See: {text}", [])
    called = list(f'{said} >>>add\n{{"a": 1}}'.encode())
    assert answered(found, called) == (f"See: {text.rstrip()}", [("add", '{"a": 1}')])
