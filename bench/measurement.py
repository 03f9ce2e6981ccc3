"""Results of a benchmark: numbers of targets in rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

OURS = "ours"
BARE = "bare"


class BenchError(Exception):
    """A benchmark cannot continue; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value. ``metric``'s name ends in its unit; ``model``: a file's name or ``fake``."""

    scenario: str
    model: str
    target: str
    metric: str
    round: int
    value: float


@dataclass(slots=True)
class Record:
    """All measurements of a run in order, what was left out, and the failures."""

    measurements: list[Measurement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def next_round(self) -> int:
        """The number of the next round to measure."""
        return 1 + max((m.round for m in self.measurements), default=-1)

    def add(
        self, scenario: str, model: str, target: str, round_: int, values: Mapping[str, float]
    ) -> None:
        """Add the numbers of one target in one round."""
        for metric, value in values.items():
            self.measurements.append(Measurement(scenario, model, target, metric, round_, value))

    def leave_out(self, why: str) -> None:
        """Record once what could not be measured, with the reason."""
        if why not in self.left_out:
            self.left_out.append(why)

    def rounds_of(self, scenario: str, model: str, target: str, metric: str) -> dict[int, float]:
        """Round -> value."""
        wanted = (scenario, model, target, metric)
        return {
            m.round: m.value
            for m in self.measurements
            if (m.scenario, m.model, m.target, m.metric) == wanted
        }


def percentile(values: Iterable[float], percent: int) -> float:
    """The ``percent``-th percentile (1 to 99), interpolated, never beyond the largest."""
    ordered = sorted(values)
    if len(ordered) < 2:
        return ordered[0]
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]
