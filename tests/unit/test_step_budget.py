"""What a grammar may take of the engine's thread: dear steps, but not one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from jobs.contract.errors import GrammarError
from jobs.contract.grammars import Grammar, GrammarKind
from workers.engines.fake import FakeTokenizer
from workers.text.grammar import GrammarCompiler
from workers.text.matcher import Matcher
from workers.text.step_budget import StepBudget


def num_taken(steps: Iterable[float]) -> int:
    """Steps of so many seconds until the budget is spent: 10 ms are free, 100 may be owed."""
    budget = StepBudget(0.01, 0.1)
    num = 0
    for seconds in steps:
        budget.spend(seconds)
        if budget.is_exceeded:
            break
        budget.end_step()
        num += 1
    return num


def write(matcher: Matcher, num_tokens: int) -> None:
    for _ in range(num_tokens):
        matcher.mask()
        matcher.accept(ord("a"))


def test_cheap_steps_may_go_on_for_ever() -> None:
    assert num_taken([0.01] * 10_000) == 10_000


def test_a_dear_step_now_and_then_is_paid_by_those_that_follow() -> None:
    assert num_taken([0.1, *[0.0] * 10] * 1000) == 11_000


def test_dear_steps_one_after_the_other_are_too_much() -> None:
    assert num_taken([0.03] * 1000) == 5


def test_one_step_alone_can_be_too_much() -> None:
    assert num_taken([0.2]) == 0


def test_a_text_whose_budget_is_exceeded_ends_by_name() -> None:
    compiler = GrammarCompiler(FakeTokenizer())
    compiled = compiler._compiled_matcher(Grammar(GrammarKind.REGEX, "a*"))
    matcher = Matcher(compiled.deep_copy(), "regex", 272, StepBudget(0.0, 0.0, slow_s=0.0))
    with pytest.raises(GrammarError, match="too long") as caught:
        write(matcher, 1000)
    assert caught.value.param == "regex"
    with pytest.raises(GrammarError):
        matcher.accept(ord("a"))
