"""Restarts, purges and data of other versions."""

from __future__ import annotations

from tests.faults import data_faults
from tests.faults.fast_rows import assert_tolerated, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(data_faults.RUNS)
def test_the_restart_is_tolerated(rig: Rig, run: Run) -> None:
    assert_tolerated(rig, run)
