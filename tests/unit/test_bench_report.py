"""Goals are judged by the median of the rounds' ratios, and tables line up."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from bench.goals import GOALS, Bound, Cell, Goal, Outcome, ratios
from bench.measurement import OURS, Record, percentile
from bench.plot import plot
from bench.report import figure, report, spread, table
from bench.scenarios import TOKENS_PER_S, distinct_name
from bench.svg import Group, Panel, chart

_SCENARIO = distinct_name(4)
_SPEED = Cell(_SCENARIO, "m", OURS, "tokens/s")
_GOAL = Goal("as fast", _SPEED, Bound.AT_LEAST, 1.0, over=Cell(_SCENARIO, "m", "peer", "tokens/s"))


def _record(ours: list[float], peer: list[float]) -> Record:
    record = Record()
    for target, values in ((OURS, ours), ("peer", peer)):
        for round_, value in enumerate(values):
            record.add(_SCENARIO, "m", target, round_, {TOKENS_PER_S: value})
    return record


def test_a_goal_takes_the_median_of_the_ratios_within_rounds() -> None:
    # The machine slows down tenfold: medians of each side would say 30 / 20.
    outcome = _GOAL.judge(_record([200, 30, 3], [100, 20, 4]))
    assert outcome.values == [0.75, 1.5, 2.0]
    assert (outcome.median, outcome.is_met) == (1.5, True)


def test_rounds_that_one_side_lacks_do_not_count() -> None:
    assert ratios({0: 4.0, 1: 6.0, 3: 1.0}, {1: 3.0, 2: 1.0, 3: 0.0}) == {1: 2.0}


def test_a_goal_without_figures_is_neither_met_nor_missed() -> None:
    outcome = _GOAL.judge(Record())
    assert (outcome.is_met, outcome.verdict) == (None, "not measured")


@pytest.mark.parametrize(
    ("ours", "verdict"), [([1.0] * 5, "met"), ([0.9] * 5, "MISSED"), ([1.0], "met (only 1 rounds)")]
)
def test_a_verdict_says_when_rounds_are_few(ours: list[float], verdict: str) -> None:
    assert _GOAL.judge(_record(ours, [1.0] * 5)).verdict == verdict


@pytest.mark.parametrize(
    ("bound", "value", "is_good"),
    [(Bound.AT_LEAST, 1.0, True), (Bound.AT_LEAST, 0.99, False), (Bound.AT_MOST, 1.0, True),
     (Bound.AT_MOST, 1.01, False)],
)  # fmt: skip
def test_the_limit_itself_is_good(bound: Bound, value: float, is_good: bool) -> None:
    assert bound.holds(value, 1.0) is is_good


def test_goals_have_names_of_their_own() -> None:
    assert len({goal.name for goal in GOALS}) == len(GOALS)


def test_a_report_shows_medians_ratios_goals_and_what_is_missing() -> None:
    record = _record([300.0, 330.0, 360.0], [200.0, 220.0, 240.0])
    record.left_out.append("m, other: not installed")
    lines = report(record, [_GOAL]).splitlines()
    assert lines[0] == "m: distinct, 4 clients"
    assert lines[1].split() == ["ours", "peer", "ours", "/", "peer"]
    assert lines[2].split() == ["tokens/s", "330", "220", "1.5"]
    assert any(line.startswith("as fast") and "≥ 1" in line for line in lines)
    assert lines[-2:] == ["Left out", "  m, other: not installed"]


def test_a_target_without_a_figure_has_a_dash() -> None:
    record = _record([300.0], [200.0])
    record.add(_SCENARIO, "m", "peer", 0, {"memory MB": 7.0})
    assert any(
        line.split() == ["memory", "MB", "-", "7", "-"] for line in report(record).split("\n")
    )


def test_columns_line_up() -> None:
    assert table([["a", "bbb"], ["long", "c"]]) == "a     bbb\nlong    c"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12345.6, "12,346"), (0.01234, "0.0123"), (99.96, "100")]
)
def test_figures_keep_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_spread_is_a_median_with_its_range() -> None:
    assert (spread([2.0]), spread([3.0, 1.0, 2.0])) == ("2", "2 (1 to 3)")


def test_percentiles_stay_within_the_values() -> None:
    assert percentile([1.0], 99) == 1.0
    assert 1.0 < percentile([1.0, 2.0, 10.0], 99) <= 10.0


def test_a_chart_is_well_formed_and_its_longest_bar_is_the_largest_value() -> None:
    panel = Panel("<&>", [Group("g", [("a", 2.0), ("b", 8.0)]), Group("h", [("a", 0.0)])])
    root = ElementTree.fromstring(chart([panel]))
    widths = [float(e.attrib["width"]) for e in root.iter("{http://www.w3.org/2000/svg}rect")]
    small, large, none = widths[-3:]
    assert small / large == pytest.approx(0.25, abs=0.001)
    assert none == 0.0
    assert "<&>" in [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_plot_leaves_out_what_was_not_measured() -> None:
    text = plot(_record([3.0], [2.0]))
    assert "Tokens per second" in text
    assert "shared prefix" not in text
    assert "m: distinct, 4 clients" in text


@pytest.mark.parametrize(
    ("num", "ranks"), [(5, None), (6, (1, 6)), (15, (4, 12)), (20, (6, 15)), (100, (40, 61))]
)
def test_the_interval_of_a_median_is_that_of_tables(
    num: int, ranks: tuple[float, float] | None
) -> None:
    """Ranks from the binomial distribution, as in tables of the sign test."""
    outcome = Outcome(GOALS[0], [float(rank) for rank in range(1, num + 1)])
    assert outcome.interval == ranks
