"""The rows with fast rounds as tests.

They fail for anything lost, doubled, wrong or hung. Times are compared with their goals only by
``python -m tests.faults``.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.faults.registry import Run
from tests.faults.rig import Rig

_TIMEOUT_S = 180


def each_fast_row(runs: Mapping[str, Run]) -> pytest.MarkDecorator:
    """Parametrize a test with the ``run`` of each row that has fast rounds."""
    return pytest.mark.parametrize(
        "run",
        [
            pytest.param(run, id=key, marks=pytest.mark.timeout(_TIMEOUT_S))
            for key, run in runs.items()
            if run.fast
        ],
    )


def assert_tolerated(rig: Rig, run: Run) -> None:
    result = run.act(rig, run.fast)
    assert result.is_right, result
