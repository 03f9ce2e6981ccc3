"""Invalid and extreme text, numbers and bodies."""

from __future__ import annotations

from tests.faults import input_faults
from tests.faults.fast_rows import assert_tolerated, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(input_faults.RUNS)
def test_the_bad_input_is_tolerated(rig: Rig, run: Run) -> None:
    assert_tolerated(rig, run)
