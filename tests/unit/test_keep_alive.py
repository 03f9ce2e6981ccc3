"""ollama's ``keep_alive`` in all of its forms."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.contract.keep_alive import parse_keep_alive


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (300, 300.0), (0, 0.0), (-1, -1.0), (2.5, 2.5), ("300", 300.0), ("0", 0.0),
        ("5m", 300.0), ("1h30m", 5400.0), ("1h0m5s", 3605.0), ("1.5h", 5400.0), (".5s", 0.5),
        ("-1s", -1.0), ("-1m", -60.0), ("+5m", 300.0), ("500ms", 0.5), ("2us", 2e-6), ("2µs", 2e-6),
        ("0s", 0.0), (" 5m ", 300.0),
    ],
)  # fmt: skip
def test_a_duration_is_seconds(given: Any, seconds: float) -> None:
    assert parse_keep_alive(given) == pytest.approx(seconds)


@pytest.mark.parametrize("given", [None, ""])
def test_nothing_says_nothing(given: Any) -> None:
    assert parse_keep_alive(given) is None


@pytest.mark.parametrize(
    "given",
    ["soon", "m", "5 m", "5d", "m5", "1h-5m", "--5m", "5m!", True, [], {}, "9" * 400 + "s",
     float("nan"), float("inf"), 10**400, "nan", "1e3"],
)  # fmt: skip
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="seconds, or a duration"):
        parse_keep_alive(given)
