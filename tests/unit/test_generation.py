"""One choice's text: characters whole, stop strings held back, and the same after a cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.events import decode_event, encode_event
from jobs.contract.sampling import Sampling
from tests.helpers.samples import event
from workers.engines.base import FinishReason, Sequence, Token
from workers.engines.fake import FakeTokenizer
from workers.generation.job import Choice
from workers.markup.reader import Delta

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


def new_choice(stop: list[str] | None = None) -> Choice:
    return Choice(0, Sequence(1, [1], 100, Sampling()), stop or [], FakeTokenizer())


def feed(choice: Choice, token_ids: list[int], finish: FinishReason | None = None) -> str:
    """The text shown, until the choice ends; ``finish`` comes with the last token."""
    shown = ""
    for index, token_id in enumerate(token_ids):
        is_last = index == len(token_ids) - 1
        added, reason = choice.feed(Token(1, token_id, finish if is_last else None))
        shown += added.text
        if reason is not None:
            break
    return shown


@given(TEXTS.filter(bool))
def test_the_text_is_whole_whatever_its_characters(text: str) -> None:
    assert feed(new_choice(), list(text.encode()), FinishReason.LENGTH) == text


def test_half_a_character_is_not_shown() -> None:
    choice = new_choice()
    assert [choice.feed(Token(1, byte))[0].text for byte in "é".encode()] == ["", "é"]


def test_a_character_that_never_came_whole_is_replaced_at_the_end() -> None:
    choice = new_choice()
    assert choice.feed(Token(1, 0xC3, FinishReason.LENGTH)) == (Delta(text="\ufffd"), "length")


def test_a_stop_string_is_cut_off_and_ends_the_choice() -> None:
    choice = new_choice(["END"])
    assert feed(choice, list(b"one END two")) == "one "
    assert choice.num_tokens == 7
    assert choice.stop == "END"


def test_a_stop_string_may_name_a_control_token() -> None:
    choice = new_choice(["<|im_start|>"])
    assert feed(choice, [*b"one", 259, *b" two", 257, *b"three"]) == "one two"
    assert choice.stop == "<|im_start|>"
    assert feed(new_choice(["im_start"]), [*b"a", 257, *b"b"], FinishReason.LENGTH) == "ab"


def test_what_might_become_a_stop_string_is_shown_when_it_does_not() -> None:
    choice = new_choice(["END"])
    assert feed(choice, list(b"an EN"), FinishReason.LENGTH) == "an EN"
    assert choice.stop is None


def test_a_stop_string_completed_by_the_last_token_is_a_stop() -> None:
    choice = new_choice(["END"])
    assert feed(choice, list(b"EN")) == ""
    shown, reason = choice.feed(Token(1, ord("D"), FinishReason.LENGTH))
    assert (shown.text, reason) == ("", "stop")


def test_an_end_token_has_no_text() -> None:
    choice = new_choice()
    end = Token(1, 256, FinishReason.STOP, is_end=True)
    assert feed(choice, list(b"hi")) == "hi"
    assert choice.feed(end) == (Delta(), "stop")
    assert choice.num_tokens == 3


@given(TEXTS, st.integers(0, 200), st.lists(st.sampled_from(["ab", "é", "aab", "b\n"]), max_size=2))
def test_a_choice_that_goes_on_after_a_cut_shows_what_was_missing(
    text: str, cut: int, stop: list[str]
) -> None:
    tokens = list(text.encode()) or [0]
    undisturbed = feed(new_choice(stop), tokens, FinishReason.LENGTH)
    before = new_choice(stop)
    shown = ""
    for sent, token_id in enumerate(tokens[: min(cut, len(tokens) - 1)], start=1):
        piece, reason = before.feed(Token(1, token_id))
        shown += piece.text
        if reason is not None:
            assert shown == undisturbed
            return
        after = new_choice(stop)
        after.replay(tokens[:sent])
        assert shown + feed(after, tokens[sent:], FinishReason.LENGTH) == undisturbed
        assert after.num_tokens >= before.num_tokens


def test_log_probabilities_only_for_who_asked() -> None:
    choice = new_choice()
    assert choice.logprob(Token(1, 65)) is None
    entry = choice.logprob(Token(1, 65, logprob=-0.5, top_logprobs=((65, -0.5), (0xC3, -3.0))))
    assert (entry.token_id, entry.text, entry.logprob, entry.raw) == (65, "A", -0.5, [65])
    assert [(top.text, top.raw) for top in entry.top] == [("A", [65]), ("\ufffd", [0xC3])]


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_a_log_probability_that_json_cannot_say_reaches_the_reader(value: float) -> None:
    """Padded vocabularies have -inf logits; as ``null`` they would make the event unreadable."""
    entry = new_choice().logprob(Token(1, 65, logprob=-1.0, top_logprobs=((66, value),)))
    sent = event(logprobs=[entry])
    assert decode_event(encode_event(sent)).logprobs[0].top[0].logprob == -9999.0
