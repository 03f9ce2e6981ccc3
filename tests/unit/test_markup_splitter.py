"""Answers cut into thoughts, content and calls, however their text arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.markup.dialects import Marker
from workers.markup.splitter import Part, Splitter

THINK = Marker("<think>", "</think>")
CALL = Marker("<tool_call>", "</tool_call>")
KEPT = Marker("<function=", "</function>", is_kept=True)
OPEN = Marker("[TOOL_CALLS]", "")

MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<function=", "</function>"]

Parts = list[tuple[str, str]]


def split(
    pieces: list[str],
    thinking: Marker | None = THINK,
    calls: tuple[Marker, ...] = (CALL, KEPT),
    *,
    is_thinking: bool = False,
    is_cut: bool = False,
) -> Parts:
    """The parts with their texts, those of one part joined; a cut call is ``cut``."""
    splitter = Splitter(thinking, calls, is_thinking=is_thinking)
    found = [stretch for piece in pieces for stretch in splitter.feed(piece)]
    found += splitter.finish(is_cut=is_cut)
    joined: Parts = []
    for part, text, is_whole in found:
        name = part.name.lower() if is_whole else "cut"
        if joined and joined[-1][0] == name and part is not Part.CALL:
            joined[-1] = (name, joined[-1][1] + text)
        else:
            joined.append((name, text))
    return joined


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("  plain text \n", [("content", "  plain text \n")]),
        ("<think>\nhm\n</think>\n\nyes \n", [("reasoning", "hm"), ("content", "yes \n")]),
        ("<think></think>yes", [("content", "yes")]),
        ("a\n<tool_call>\n{}\n</tool_call>\n", [("content", "a"), ("call", "\n{}\n")]),
        (
            "<tool_call>1</tool_call>\n<tool_call>2</tool_call>",
            [("call", "1"), ("call", "2")],
        ),
        ("<think>so <tool_call>1</tool_call>", [("reasoning", "so"), ("call", "1")]),
        ("<function=f></function>\n</tool_call>", [("call", "<function=f></function>")]),
        ("1 < 2 <tool", [("content", "1 < 2 <tool")]),
        ("<tool_call>{", [("cut", "{")]),
        ("<tool_call>{</tool_", [("cut", "{</tool_")]),
    ],
)
def test_an_answer_falls_into_its_parts(text: str, parts: Parts) -> None:
    assert split([text]) == parts
    assert split(list(text)) == parts


def test_a_prompt_may_have_opened_the_thoughts() -> None:
    assert split(["\nhm", " ok </thi", "nk>yes"], is_thinking=True) == [
        ("reasoning", "hm ok"),
        ("content", "yes"),
    ]


def test_a_call_without_an_end_lasts_to_the_end_of_the_text() -> None:
    assert split(["hi [TOOL_", "CALLS]f[ARGS]{}"], calls=(OPEN,)) == [
        ("content", "hi"),
        ("call", "f[ARGS]{}"),
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
    at_once = split([text], is_thinking=is_thinking, is_cut=is_cut)
    assert split(pieces, is_thinking=is_thinking, is_cut=is_cut) == at_once


@given(st.text(st.sampled_from("ab \n<>"), max_size=20))
def test_a_text_without_markers_comes_out_as_it_is(text: str) -> None:
    assert "".join(shown for _, shown in split(list(text))) == text
