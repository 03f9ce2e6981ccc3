"""."""

from tests.faults.registry import Run

RUNS: dict[str, Run] = {}
