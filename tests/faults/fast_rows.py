"""The rows that can be tried quickly, as tests with few rounds: what must hold does hold.

Figures that depend on the clock are judged by ``python -m tests.faults`` alone; here only what is
lost, doubled, wrong or hung fails.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.faults.registry import Run
from tests.faults.rig import Rig

_TIMEOUT_S = 180


def each_fast_row(runs: Mapping[str, Run]) -> pytest.MarkDecorator:
    """Run a test once for each of the rows that has fast rounds, as its ``run``."""
    return pytest.mark.parametrize(
        "run",
        [
            pytest.param(run, id=key, marks=pytest.mark.timeout(_TIMEOUT_S))
            for key, run in runs.items()
            if run.fast
        ],
    )


def assert_borne(rig: Rig, run: Run) -> None:
    result = run.act(rig, run.fast)
    assert result.is_right, result
