"""Text, numbers and bodies that nobody sends on purpose."""

from __future__ import annotations

from tests.faults import input_faults
from tests.faults.fast_rows import assert_borne, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(input_faults.RUNS)
def test_the_bad_input_is_borne(rig: Rig, run: Run) -> None:
    assert_borne(rig, run)
