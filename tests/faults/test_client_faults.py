"""Clients that disconnect, reconnect, or are slow."""

from __future__ import annotations

from tests.faults import client_faults
from tests.faults.fast_rows import assert_tolerated, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(client_faults.RUNS)
def test_the_fault_of_a_client_is_tolerated(rig: Rig, run: Run) -> None:
    assert_tolerated(rig, run)
