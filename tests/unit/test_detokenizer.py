from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.text.detokenizer import Detokenizer


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(borders)]


def feed(pieces: list[bytes]) -> list[str]:
    detokenizer = Detokenizer()
    return [*map(detokenizer.feed, pieces), detokenizer.finish()]


def test_a_character_comes_out_with_its_last_byte() -> None:
    assert feed([b"a\xf0", b"\x9f", b"\x98", b"\x80b"]) == ["a", "", "", "😀b", ""]


def test_an_open_character_becomes_a_replacement_at_the_end() -> None:
    assert feed([b"a", b"\xe2\x82"]) == ["a", "", "�"]


def test_a_byte_that_starts_nothing_is_replaced_at_once() -> None:
    assert feed([b"\xff", b"a"]) == ["�", "a", ""]


def test_nothing_is_left_after_the_end() -> None:
    detokenizer = Detokenizer()
    detokenizer.feed(b"\xe2")
    assert (detokenizer.finish(), detokenizer.finish()) == ("�", "")


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.lists(st.integers(0)))
def test_any_cut_of_a_text_gives_the_text_and_no_broken_character(
    text: str, cuts: list[int]
) -> None:
    shown = feed(pieces_of(text.encode(), cuts))
    assert "".join(shown) == text
    assert shown[-1] == ""


@settings(deadline=None)  # the machine may be busy
@given(st.binary(), st.lists(st.integers(0)))
def test_bytes_that_are_not_utf_8_decode_the_same_however_cut(data: bytes, cuts: list[int]) -> None:
    assert "".join(feed(pieces_of(data, cuts))) == data.decode(errors="replace")
