"""Scenarios played in turn, each failure a line of the result."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable
from functools import partial

from tests.faults.registry import Result, Tally
from tests.helpers.netns import need_network

Scenario = Callable[[Tally], None]

WHOLE = "0 tokens lost or doubled, 0 jobs left behind"


def play(rounds: int, *scenarios: Scenario) -> Result:
    """So many rounds, each with the next of the scenarios."""
    need_network()
    tally = Tally()
    for scenario in itertools.islice(itertools.cycle(scenarios), rounds):
        try:
            scenario(tally)
        except Exception as error:
            traceback.print_exc()
            what = " ".join(str(error).split())[:200]
            tally.check(False, f"{_named(scenario)}: {type(error).__name__}: {what}")
        tally.rounds += 1
    return tally.result()


def _named(scenario: Scenario) -> str:
    if not isinstance(scenario, partial):
        return getattr(scenario, "__name__", "")
    options = ", ".join(f"{name}={value}" for name, value in scenario.keywords.items())
    return f"{scenario.func.__name__}({options})"
