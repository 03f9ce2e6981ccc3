"""What ends a choice besides its model, and the length before which nothing does."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.contract.requests import Prompt
from jobs.contract.sampling import Sampling
from tests.helpers.clock import Clock
from tests.helpers.loop_rig import fake_engine, running_loop
from tests.helpers.samples import generate
from workers.engines.base import Sequence, Token
from workers.engines.fake import FakeTokenizer
from workers.generation.ends import Ends, MinLength
from workers.generation.job import Choice


def new_choice(ends: Ends, *stop: str) -> Choice:
    sequence = Sequence(1, [1], 100, Sampling())
    return Choice(0, sequence, list(stop), FakeTokenizer(), ends=ends)


def feed(choice: Choice, text: str) -> tuple[str, str | None]:
    """The text shown until the choice ends, and the reason."""
    shown, reason = "", None
    for byte in text.encode():
        delta, reason = choice.feed(Token(1, byte))
        shown += delta.text
        if reason is not None:
            break
    return shown, reason


def test_a_stop_token_ends_the_text_and_has_none() -> None:
    assert feed(new_choice(Ends(stop_token_ids=[ord("c")])), "abcd") == ("ab", "stop")


def test_nothing_ends_a_text_before_its_shortest_length() -> None:
    ends = Ends(min_tokens=3, stop_token_ids=[ord("c")])
    assert feed(new_choice(ends, "b"), "abcabc") == ("abca", "stop")
    assert feed(new_choice(Ends(min_tokens=3), "<|im_start|>"), "abc") == ("abc", None)


def test_a_control_token_that_is_a_stop_string_is_not_shown_before_that_length() -> None:
    choice = new_choice(Ends(min_tokens=3), "<|im_start|>")
    assert choice.feed(Token(1, 257))[0].text == ""


def test_a_time_limit_waits_for_a_line_break(clock: Clock) -> None:
    choice = new_choice(Ends(limit_ms=500))
    assert feed(choice, "one line, ") == ("one line, ", None)
    clock.now += 0.6
    assert feed(choice, "on\nand on") == ("on\n", "length")


def test_a_time_limit_counts_from_the_first_token(clock: Clock) -> None:
    choice = new_choice(Ends(limit_ms=500))
    clock.now += 9.0
    assert feed(choice, "a\nb") == ("a\nb", None)
    clock.now += 0.6
    assert feed(choice, "cd") == ("c", "length")


@pytest.mark.parametrize(
    ("min_indent", "text", "expected"),
    [
        (4, "  a\n    b\n  c", ("  a\n    b\n  ", "length")),
        (4, "a\n\t\t\t\tb\n\n", ("a\n\t\t\t\tb\n", "length")),
        (1, "a\n b\n c", ("a\n b\n c", None)),
        (0, "  a\nb\n", ("  a\nb\n", None)),
    ],
)
def test_a_line_that_is_indented_too_little_ends_the_text_before_it(
    min_indent: int, text: str, expected: tuple[str, str | None]
) -> None:
    assert feed(new_choice(Ends(min_indent=min_indent)), text) == expected


def test_an_indented_block_goes_on_after_its_worker_was_lost() -> None:
    choice = new_choice(Ends(min_indent=2))
    choice.replay(b"if x:\n ")
    assert feed(choice, " y\nz") == (" y\n", "length")


def test_the_ends_are_banned_until_the_length_is_reached() -> None:
    constraint = MinLength([2, 9], 4, 1, None)
    mask = constraint.allowed()
    assert mask is not None
    assert mask.tolist() == [True, True, False, True]
    constraint.accept(0)
    assert constraint.allowed() is None


class OnlyEnd:
    """A grammar that is complete."""

    def allowed(self) -> np.ndarray:
        return np.array([False, False, True])

    def accept(self, token_id: int) -> None:
        assert token_id == 2


def test_a_grammar_that_allows_only_an_end_may_end() -> None:
    constraint = MinLength([2], 3, 5, OnlyEnd())
    mask = constraint.allowed()
    assert mask is not None
    assert mask.tolist() == [False, False, True]
    constraint.accept(2)


@pytest.mark.parametrize("min_tokens", [0, 600])
def test_an_engine_goes_on_to_the_shortest_length(min_tokens: int) -> None:
    with running_loop(fake_engine(context_length=2000)) as rig:
        events = rig.wait_ended(rig.start(generate("x", None, min_tokens=min_tokens)))
    num_tokens = sum(len(event.token_ids) for event in events)
    assert events[-2].finish_reason == "stop"
    assert min_tokens < num_tokens <= min_tokens + 512  # the fake engine wants to end so often


def test_only_the_end_of_a_prompt_is_read() -> None:
    request = generate(prompts=[Prompt(text="ab" * 100)], truncate_prompt_tokens=10)
    with running_loop(fake_engine(context_length=50)) as rig:
        usage = rig.wait_ended(rig.start(request))[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == 10
