"""Every fault that can be tried quickly, with few rounds: what must hold does hold.

Figures that depend on the clock are judged by ``python -m tests.faults`` alone; here only what is
lost, doubled, wrong or hung fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.catalogue import ROWS
from tests.faults.rig import Rig
from tests.faults.runs import all_runs

RUNS = all_runs()
FAST = [row.id for row in ROWS if row.id in RUNS and RUNS[row.id].fast]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    found.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("key", FAST)
def test_the_fault_is_borne(rig: Rig, key: str) -> None:
    result = RUNS[key].act(rig, RUNS[key].fast)
    assert result.is_right, result


def test_only_rows_of_the_table_are_run_and_none_that_waits() -> None:
    known = {row.id for row in ROWS if not row.waits_for}
    assert RUNS.keys() <= known


def test_the_table_has_every_row_once() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS) == 81 + 2
