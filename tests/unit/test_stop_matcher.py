from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.text.stop_matcher import StopMatcher

SMALL_TEXT = st.text("ab", max_size=24)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def run(stops: list[str], chunks: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for chunk in chunks:
        text, is_stopped = matcher.feed(chunk)
        shown += text
        if is_stopped:
            return shown, True
    return shown + matcher.finish(), False


def search(stops: list[str], text: str) -> tuple[str, bool]:
    """The definition, on the whole text: the first end of a stop string, the longest there."""
    for end in range(len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


@settings(deadline=None)  # the machine may be busy
@given(STOPS, SMALL_TEXT, st.lists(st.integers(0, 24)))
def test_any_chunks_give_what_searching_the_whole_text_gives(
    stops: list[str], text: str, cuts: list[int]
) -> None:
    borders = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    chunks = [text[start:end] for start, end in itertools.pairwise(borders)]
    assert run(stops, chunks) == search(stops, text)


@settings(deadline=None)  # the machine may be busy
@given(STOPS, SMALL_TEXT)
def test_nothing_is_held_back_but_what_may_become_a_stop_string(
    stops: list[str], text: str
) -> None:
    matcher = StopMatcher(stops)
    shown, is_stopped = matcher.feed(text)
    held = matcher.finish()
    assert is_stopped or shown + held == text
    assert not held or any(stop.startswith(held) and stop != held for stop in stops)


def test_without_stop_strings_text_passes_at_once() -> None:
    assert StopMatcher([]).feed("text") == ("text", False)


def test_a_stop_string_over_three_chunks_is_cut_off() -> None:
    matcher = StopMatcher(["</end>"])
    assert [matcher.feed(chunk) for chunk in ("ok <", "/en", "d> more")] == [
        ("ok ", False),
        ("", False),
        ("", True),
    ]


def test_what_turns_out_to_be_no_stop_string_is_shown() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.feed("ST") == ("", False)
    assert matcher.feed("AR") == ("STAR", False)


def test_the_stop_string_that_is_complete_first_wins() -> None:
    assert run(["abcdef", "cd"], ["abcdef"]) == ("ab", True)


def test_it_says_which_stop_string_ended_the_text() -> None:
    matcher = StopMatcher(["abc", "bc", "x"])
    assert (matcher.feed("za"), matcher.found) == (("z", False), None)
    assert (matcher.feed("bcx"), matcher.found) == (("", True), "abc")


def test_nothing_is_left_after_the_end() -> None:
    matcher = StopMatcher(["ab"])
    matcher.feed("a")
    assert (matcher.finish(), matcher.finish()) == ("a", "")


def test_an_empty_stop_string_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        StopMatcher([""])
