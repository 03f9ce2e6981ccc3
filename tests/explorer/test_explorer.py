"""All orders of all steps of small worlds: the protocol holds, and planted faults are found."""

from __future__ import annotations

import pytest

from tests.explorer.planted import FAULTS, Planted
from tests.explorer.search import Result, Search
from tests.explorer.world import JobWorld

_MOST = 100_000


def _search(world: JobWorld) -> Result:
    return Search(world, _MOST).run()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_with_its_history(fault: Planted) -> None:
    world = JobWorld(fault.rules, fault.edit)
    result = _search(world)
    assert result.violations, result
    (violation,) = result.violations
    assert fault.what in violation.what, result
    _assert_in_order(violation.history, fault.steps)


def _assert_in_order(history: tuple[str, ...], steps: tuple[str, ...]) -> None:
    lines = iter(history)
    for step in steps:
        assert any(step in line for line in lines), (step, history)
