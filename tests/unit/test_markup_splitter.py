"""Answers cut into thoughts, content and calls, however their text arrives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.markup.calls.call_reader import CallReader
from workers.markup.calls.format import CallFormat
from workers.markup.calls.formats import FORMATS
from workers.markup.calls.source import Ended, Started, Written
from workers.markup.markers import CallMarker, Marker
from workers.markup.splitter import Layout, Part, Splitter

THINK = Marker("<think>", "</think>")
CALLS = tuple(
    CallMarker(FORMATS[name].start, FORMATS[name]) for name in ("json_tools", "qwen3_coder_bare")
)
LAYOUT = Layout(THINK, CALLS)
F = '{"name": "f", "arguments": {"x": 1}}'

MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<function=", "</function>", F]

Parts = list[tuple[str, str]]


def split(pieces: list[str], layout: Layout = LAYOUT, *, is_cut: bool = False) -> Parts:
    """The parts with their texts, those of one part joined; a call is ``call``, ended or not."""
    splitter = Splitter(layout, new_reader)
    found = [segment for piece in pieces for segment in splitter.feed(piece)]
    found += splitter.finish(is_cut=is_cut)
    joined: Parts = []
    for part, text, event in found:
        name = part.name.lower()
        shown = {Started: getattr(event, "name", "") + " ", Ended: ".", Written: text}
        added = text if event is None else shown[type(event)] or getattr(event, "text", "")
        if joined and joined[-1][0] == name and not isinstance(event, Started):
            joined[-1] = (name, joined[-1][1] + added)
        else:
            joined.append((name, added))
    return joined


def new_reader(form: CallFormat, is_constrained: bool) -> CallReader:
    return CallReader(form, [], is_constrained=is_constrained)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("  plain text \n", [("content", "  plain text \n")]),
        ("<think>\nhm\n</think>\n\nyes \n", [("reasoning", "hm"), ("content", "yes \n")]),
        ("<think></think>yes", [("content", "yes")]),
        (f"a\n<tool_call>\n{F}\n</tool_call>\n", [("content", "a"), ("call", 'f {"x": 1}.')]),
        (
            f"<tool_call>{F}</tool_call>\n<tool_call>{F}</tool_call>",
            [("call", 'f {"x": 1}.'), ("call", 'f {"x": 1}.')],
        ),
        (
            f"<think>so <tool_call>{F}</think>a",
            [("reasoning", f"so <tool_call>{F}"), ("content", "a")],
        ),
        ("<function=f></function>\n</tool_call>", [("call", "f {}.")]),
        ("1 < 2 <tool", [("content", "1 < 2 <tool")]),
        ("<tool_call>{", [("content", "{")]),
        ("<tool_call>{</tool_", [("content", "{</tool_")]),
        ("a <think> b </think>", [("content", "a <think> b </think>")]),
        ("a </tool_call> b", [("content", "a </tool_call> b")]),
        ("<think>a</think><think>b</think>", [("reasoning", "a"), ("content", "<think>b</think>")]),
        (
            '<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}</tool_call>',
            [("call", 'f {"x": "</tool_call>"}.')],
        ),
    ],
)
def test_an_answer_falls_into_its_parts(text: str, parts: Parts) -> None:
    assert split([text]) == parts
    assert split(list(text)) == parts


def test_a_prompt_may_have_opened_the_thoughts() -> None:
    layout = Layout(THINK, CALLS, is_thinking=True)
    assert split(["\nhm", " ok </thi", "nk>yes"], layout) == [
        ("reasoning", "hm ok"),
        ("content", "yes"),
    ]


@pytest.mark.parametrize("text", ["<think>a</think>", "a <tool_call> b", '{"a": "<think>"}'])
def test_nothing_is_markup_in_content_that_a_grammar_holds(text: str) -> None:
    assert split(list(text), Layout(THINK, (), is_constrained=True)) == [("content", text)]
    held = Layout(THINK, CALLS, is_thinking=True, is_constrained=True)
    assert split(["hm</think>", *text[3:]], held)[1:] == [("content", text[3:])]


def test_each_call_of_an_answer_that_a_grammar_holds_is_one() -> None:
    section = f"<tool_call>{F}</tool_call>"
    layout = Layout(None, CALLS, is_constrained=True)
    assert split([f"{section}\n", section, section], layout) == [("call", 'f {"x": 1}.')] * 3


CHANNELS = Layout(
    Marker("<|channel|>analysis<|message|>", "<|end|>"),
    (),
    ("<|start|>assistant", "<|channel|>final", "<|message|>", "<|end|>"),
    ("<|channel|>", "<|end|>", "<|message|>", "<|start|>"),
    is_interleaved=True,
)


def said(pieces: list[str], tokens: set[str], layout: Layout = CHANNELS) -> str:
    """The content, of pieces of which some are ``tokens``."""
    splitter = Splitter(layout, new_reader)
    found = [s for one in pieces for s in splitter.feed(one, len(one) if one in tokens else 0)]
    return "".join(segment.text for segment in [*found, *splitter.finish(is_cut=False)])


def test_markers_between_the_parts_are_dropped_only_if_they_are_tokens() -> None:
    written = "Write <|channel|>final<|message|> first, <|end|> last."
    tokens = set(CHANNELS.tokens)
    begun = ["<|channel|>", "final", "<|message|>"]
    assert said([*begun, written], tokens) == written
    assert said([*begun, *written], tokens) == written
    assert said([*begun, "a", "<|end|>", "<|start|>", "assistant", *begun, "b"], tokens) == "ab"
    plain = replace(CHANNELS, tokens=())
    assert said([*begun, "a<|end|>b"], set(), plain) == "ab"


def test_interleaved_reasoning_starts_only_at_its_token() -> None:
    start = "<|channel|>analysis<|message|>"
    tokens = set(CHANNELS.tokens)
    written = f"Write {start} before it."
    begun = ["<|channel|>", "final", "<|message|>"]
    assert said([*begun, *written], tokens) == written
    splitter = Splitter(CHANNELS, new_reader)
    pieces = [*begun, "a", "<|end|>", "<|start|>", "assistant", "<|channel|>", "analysis"]
    for one in (*pieces, "<|message|>", "b"):
        splitter.feed(one, len(one) if one in tokens else 0)
    assert splitter.part is Part.REASONING


@pytest.mark.parametrize("begun", ["<", "<too", "\n", "\n<", " \n"])
def test_a_forced_call_that_is_cut_in_its_first_marker_shows_nothing(begun: str) -> None:
    held = Layout(THINK, CALLS, is_constrained=True)
    assert split([begun], held, is_cut=True) == []
    after = f"<tool_call>{F}</tool_call>{begun}"
    assert split([after], held, is_cut=True) == [("call", 'f {"x": 1}.')]


@pytest.mark.parametrize("token", CHANNELS.tokens)
def test_a_token_that_is_half_a_marker_has_no_text(token: str) -> None:
    for rest in ("", "hi", "assistan"):
        assert said(["a", token, rest, token, "z"], {token}) == f"a{rest}z"


def test_a_token_inside_a_broken_call_has_no_text() -> None:
    form = FORMATS["mistral_args"]
    layout = Layout(None, (CallMarker(form.start, form),))
    pieces = ["a", "[TOOL_CALLS]", "f", "[ARGS]", "no ", "[ARGS]", " object"]
    assert said(pieces, {"[TOOL_CALLS]", "[ARGS]"}, layout) == "afno  object"


def test_a_call_without_an_end_marker_lasts_to_the_end_of_its_json() -> None:
    form = FORMATS["mistral_args"]
    layout = Layout(None, (CallMarker(form.start, form),))
    assert split(["hi [TOOL_", "CALLS]f[ARGS]{} ok"], layout) == [
        ("content", "hi"),
        ("call", "f {}."),
        ("content", "ok"),
    ]


def test_half_a_marker_at_a_limit_is_no_text_but_a_single_character_may_be() -> None:
    assert split(["so: <tool_c"], is_cut=True) == [("content", "so:")]
    assert split(["1 <"], is_cut=True) == [("content", "1 <")]


@given(
    st.lists(
        st.sampled_from([*MARKERS, " ", "\n", "a", "<", "</", "é", "tool_call>"]),
        max_size=12,
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_it_does_not_matter_where_the_chunks_are_cut(
    words: list[str], sizes: list[int], is_thinking: bool, is_cut: bool
) -> None:
    text = "".join(words)
    pieces: list[str] = []
    rest = text
    while rest:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(rest[:size])
        rest = rest[size:]
    layout = Layout(THINK, CALLS, is_thinking=is_thinking)
    at_once = split([text], layout, is_cut=is_cut)
    assert split(pieces, layout, is_cut=is_cut) == at_once


@given(st.text(st.sampled_from("ab \n<>"), max_size=20))
def test_a_text_without_markers_comes_out_as_it_is(text: str) -> None:
    assert "".join(shown for _, shown in split(list(text))) == text
