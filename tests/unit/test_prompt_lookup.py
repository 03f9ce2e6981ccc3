"""Guesses from a sequence's own text."""

from __future__ import annotations

import numpy as np
import pytest

from workers.engines.shared.prompt_lookup import PromptLookup


@pytest.mark.parametrize(
    ("tokens", "count", "expected"),
    [
        ([1, 2, 3, 9, 1, 2, 3], 2, [9, 1]),
        ([1, 2, 7, 1, 2, 8, 1, 2], 1, [8]),  # the last occurrence
        ([5, 1, 2, 6, 4, 1, 2, 7, 5, 1, 2], 1, [6]),  # the longest ending
        ([1, 2, 3, 4], 3, []),
        ([1, 1], 3, []),
        ([1, 2, 1, 2], 0, []),
    ],
)
def test_look_up(tokens: list[int], count: int, expected: list[int]) -> None:
    lookup = PromptLookup()
    assert lookup.draft(np.asarray(tokens, np.int32), count) == expected
    assert PromptLookup().draft(tokens, count) == expected


def test_what_followed_the_last_time_is_drafted() -> None:
    lookup = PromptLookup()
    assert lookup.draft([1, 2, 3, 9, 8, 1, 2, 3], 3) == [9, 8, 1]
    assert lookup.draft([1, 2, 3, 9, 8, 1, 2, 3, 7, 1, 2, 3], 2) == [7, 1]
    assert lookup.draft([1, 2, 3, 9, 8, 1, 2, 3, 7, 1, 2, 3, 6, 8, 1], 2) == [2, 3]
    assert lookup.draft([1, 2, 3, 9, 8, 1, 2, 3, 7, 1, 2, 3, 6, 8, 1, 5], 2) == []
