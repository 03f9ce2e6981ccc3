"""Overload with clients and jobs."""

from __future__ import annotations

from tests.faults import load_faults
from tests.faults.fast_rows import assert_tolerated, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(load_faults.RUNS)
def test_the_load_is_tolerated(rig: Rig, run: Run) -> None:
    assert_tolerated(rig, run)
