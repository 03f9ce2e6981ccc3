"""A record as text: medians and ratios per scenario, and the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from bench.goals import GOALS, Cell, Goal, Outcome, ratios
from bench.measurement import OURS, Record

Row = list[str]


def report(record: Record, goals: Sequence[Goal] = GOALS) -> str:
    """All tables, and a list of what could not be measured."""
    parts = [*_sections(record), _goal_section([goal.judge(record) for goal in goals])]
    for title, lines in (("Left out", record.left_out), ("Failures", record.failures)):
        if lines:
            parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """A text table; the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def figure(value: float) -> str:
    """A number with three significant digits, or all digits of an integer."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float], interval: tuple[float, float] | None = None) -> str:
    """The median and ``interval``; without one, the range of two and more values."""
    median = figure(statistics.median(values))
    if len(values) < 2:
        return median
    low, high = interval or (min(values), max(values))
    return f"{median} ({figure(low)} to {figure(high)})"


def _line(row: Row, widths: list[int]) -> str:
    first, *others = (
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def _sections(record: Record) -> Iterator[str]:
    """One table per model and scenario, in the order in which they were measured."""
    for model, scenario in dict.fromkeys((m.model, m.scenario) for m in record.measurements):
        yield f"{model}: {scenario}\n{table(_comparison(record, model, scenario))}"


def _comparison(record: Record, model: str, scenario: str) -> list[Row]:
    """Medians of each target, and the median ratios of this server to each other target."""
    found = [m for m in record.measurements if (m.model, m.scenario) == (model, scenario)]
    targets = sorted(dict.fromkeys(m.target for m in found), key=lambda name: name != OURS)
    peers = [target for target in targets if target != OURS]
    rows: list[Row] = [["", *targets, *(f"{OURS} / {peer}" for peer in peers)]]
    for metric in dict.fromkeys(m.metric for m in found):
        rounds = {
            target: Cell(scenario, model, target, metric).rounds(record) for target in targets
        }
        ours = rounds.get(OURS, {})
        medians = [_median(rounds[target].values(), is_ranged=not peers) for target in targets]
        shares = [_median(ratios(ours, rounds[peer]).values()) for peer in peers]
        rows.append([metric, *medians, *shares])
    return rows


def _median(values: Iterable[float], *, is_ranged: bool = False) -> str:
    known = list(values)
    if not known:
        return "-"
    return spread(known) if is_ranged else figure(statistics.median(known))


def _goal_section(outcomes: list[Outcome]) -> str:
    rows: list[Row] = [["Goals (median of rounds)", "goal", "measured (95 % interval)", "verdict"]]
    for outcome in outcomes:
        goal = outcome.goal
        measured = spread(outcome.values, outcome.interval) if outcome.values else "-"
        limit = f"{goal.bound.value} {figure(goal.limit)}"
        rows.append([goal.name, limit, measured, outcome.verdict])
    return table(rows)
