"""Every row with a run, by id."""

from __future__ import annotations

from tests.faults import (
    client_faults,
    clock_faults,
    crash_histories,
    data_faults,
    disk_faults,
    foreign_fields,
    input_faults,
    load_faults,
    promise_faults,
    redis_faults,
    security_faults,
    soak,
    tested_rows,
    worker_faults,
)
from tests.faults.registry import Run

_MODULES = (
    worker_faults,
    redis_faults,
    clock_faults,
    disk_faults,
    crash_histories,
    client_faults,
    load_faults,
    promise_faults,
    soak,
    input_faults,
    security_faults,
    foreign_fields,
    data_faults,
    tested_rows,
)


def all_runs() -> dict[str, Run]:
    """The ``RUNS`` of all modules; fails if two have the same row."""
    found: dict[str, Run] = {}
    for module in _MODULES:
        assert not found.keys() & module.RUNS.keys(), found.keys() & module.RUNS.keys()
        found |= module.RUNS
    return found
