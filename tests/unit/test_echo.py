"""An echoed prompt: whole text, whole characters, and each part once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.base import PromptLogprobs
from workers.engines.fake import FakeTokenizer
from workers.generation.echo import CHUNK_TOKENS, Echo

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)


def scored(num_tokens: int) -> PromptLogprobs:
    entries = ((-float(place), ((65, -0.5),)) for place in range(1, num_tokens))
    return PromptLogprobs(1, tuple(entries))


def pieces(echo: Echo) -> list:
    return echo.chunks(scored(len(echo.token_ids)), FakeTokenizer())


@given(TEXTS)
def test_token_ids_are_shown_as_the_text_that_they_make(text: str) -> None:
    found = pieces(Echo(None, list(text.encode())))
    assert "".join(shown for shown, _ in found) == text
    tokens = [token for _, part in found for token in part]
    assert bytes(byte for token in tokens for byte in token.raw) == text.encode()
    assert [token.logprob for token in tokens] == [
        None,
        *(-float(i) for i in range(1, len(tokens))),
    ]


def test_a_given_text_is_shown_as_it_was_given() -> None:
    # A tokenizer that adds a token in front, or that normalises, would show another.
    found = pieces(Echo("  as given", [32] * (CHUNK_TOKENS + 1)))
    assert [shown for shown, _ in found] == ["  as given", ""]


def test_the_likeliest_come_along() -> None:
    ((_, (first, second)),) = pieces(Echo("ab", [97, 98]))
    assert (first.top, first.logprob) == ([], None)
    assert [(top.text, top.logprob) for top in second.top] == [("A", -0.5)]


@pytest.mark.parametrize("num_sent", range(4))
def test_what_was_sent_is_not_sent_again(num_sent: int) -> None:
    text = "é" * CHUNK_TOKENS + "x"
    ids = list(text.encode())
    whole = pieces(Echo(None, ids))
    assert len(whole) == 3
    rest = Echo(None, ids, num_sent)
    assert pieces(rest) == whole[num_sent:]
    assert rest.is_sent == (num_sent == 3)
