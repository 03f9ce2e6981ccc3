"""The bar chart of a record."""

from __future__ import annotations

import statistics

from bench import scenarios
from bench.goals import Cell
from bench.measurement import Record
from bench.scenarios import DISTINCT
from bench.svg import Group, Panel, chart

# Beginning of the scenario's name, metric, title.
_DRAWN = (
    (DISTINCT, scenarios.TOKENS_PER_S, "Tokens per second, distinct prompts (more is better)"),
    (scenarios.PREFIX, scenarios.TTFT_P50, "TTFT p50, shared prefix, ms (less is better)"),
    (scenarios.CHAT, scenarios.SECOND_TURN, "TTFT of the second chat turn, ms (less is better)"),
    (scenarios.LONG, scenarios.GAP_P99, "Gap p99 while a long prompt arrives, ms (less is better)"),
)


def plot(record: Record) -> str:
    """An SVG of the medians; scenarios that were not measured are left out."""
    panels = [_panel(record, *drawn) for drawn in _DRAWN]
    return chart([panel for panel in panels if panel.groups])


def _panel(record: Record, beginning: str, metric: str, title: str) -> Panel:
    found = [
        m for m in record.measurements if m.scenario.startswith(beginning) and m.metric == metric
    ]
    groups = []
    for model, scenario in dict.fromkeys((m.model, m.scenario) for m in found):
        targets = dict.fromkeys(
            m.target for m in found if (m.model, m.scenario) == (model, scenario)
        )
        bars = [
            (
                target,
                statistics.median(Cell(scenario, model, target, metric).rounds(record).values()),
            )
            for target in sorted(targets)
        ]
        groups.append(Group(f"{model}: {scenario}", bars))
    return Panel(title, groups)
