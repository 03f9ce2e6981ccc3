"""API keys, cross-site requests, other users, forged fields."""

from __future__ import annotations

from tests.faults import foreign_fields, security_faults
from tests.faults.fast_rows import assert_tolerated, each_fast_row
from tests.faults.registry import Run
from tests.faults.rig import Rig


@each_fast_row(security_faults.RUNS | foreign_fields.RUNS)
def test_the_attack_is_repelled(rig: Rig, run: Run) -> None:
    assert_tolerated(rig, run)
