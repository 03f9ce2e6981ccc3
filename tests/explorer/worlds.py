"""The worlds that the proof goes through to their last state, the smallest first.

Each has workers enough for every start that its faults may cause: one that cannot be started any
more would look like a job that nobody ever takes.
"""

from __future__ import annotations

from tests.explorer.rules import Rules

SMALL = {
    "a late request": Rules(tokens=(1,), lates=1, num_workers=1),
    "two jobs, and a worker dies": Rules(tokens=(2, 1), worker_deaths=1, num_workers=2),
    "a cancel, and a worker dies": Rules(
        tokens=(1,), cancelled=(0,), worker_deaths=1, num_workers=2
    ),
}
"""Those that the test suite goes through, too."""

WORLDS = {
    **SMALL,
    "a job astray": Rules(tokens=(1,), has_stray=True, worker_deaths=1, num_workers=2),
    "three jobs": Rules(tokens=(1, 1, 1), num_workers=1),
    "two slots, and a request is late": Rules(
        tokens=(1, 1), slots=2, lates=1, num_workers=1, num_supervisors=1
    ),
    "two slots, and a worker dies": Rules(tokens=(1, 1), slots=2, worker_deaths=1, num_workers=2),
    "a sweep, and a worker dies": Rules(
        tokens=(1,), has_sweep=True, num_supervisors=1, worker_deaths=1, num_workers=2
    ),
    "a successor on the same node": Rules(
        tokens=(1,), has_one_node=True, supervisor_deaths=1, worker_deaths=1, num_workers=3
    ),
    "two late requests": Rules(tokens=(1,), lates=2, num_workers=1),
    "a load, and a worker dies": Rules(
        tokens=(1,), loads=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a frozen supervisor": Rules(tokens=(1,), expiries=1, num_workers=2),
    "two losses, and a worker dies": Rules(tokens=(1,), losses=2, worker_deaths=1, num_workers=2),
    "a dead worker's late request": Rules(tokens=(1,), lates=1, worker_deaths=1, num_workers=2),
    "a supervisor and a worker die": Rules(
        tokens=(1,), supervisor_deaths=1, worker_deaths=1, num_workers=3
    ),
    "a late request, and a successor on the same node": Rules(
        tokens=(1,), has_one_node=True, lates=1, supervisor_deaths=1, num_workers=2
    ),
    "a purge, and a worker dies": Rules(
        tokens=(1,), has_purge=True, worker_deaths=1, num_workers=2
    ),
    "two jobs, and a dead worker's late request": Rules(
        tokens=(1, 1), lates=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a load and an unload": Rules(tokens=(), loads=1, unloads=1, num_supervisors=1, num_workers=1),
    "a late request, and a supervisor dies": Rules(
        tokens=(1,), lates=1, supervisor_deaths=1, num_workers=2
    ),
    "a cancel, a loss, and a worker dies": Rules(
        tokens=(1,), cancelled=(0,), losses=1, worker_deaths=1, num_workers=2
    ),
    "a loss, and a dead worker's late request": Rules(
        tokens=(1,), losses=1, lates=1, worker_deaths=1, num_workers=2
    ),
    "a frozen supervisor, and a worker dies": Rules(
        tokens=(1,), expiries=1, worker_deaths=1, num_workers=3
    ),
    "two jobs, and a frozen supervisor": Rules(tokens=(1, 1), expiries=1, num_workers=2),
}
