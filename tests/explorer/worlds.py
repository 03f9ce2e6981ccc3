"""The worlds whose states the proof searches completely, the smallest first.

Each has a worker for every start that its faults may cause: without one, a job would never be
taken, which the search would report.
"""

from __future__ import annotations

from tests.explorer.rules import Rules

SMALL = {
    "a delayed request": Rules(tokens=(1,), delays=1, num_workers=1),
    "two jobs, and a worker dies": Rules(tokens=(2, 1), worker_deaths=1, num_workers=2),
    "a cancel, and a worker dies": Rules(
        tokens=(1,), cancelled=(0,), worker_deaths=1, num_workers=2
    ),
}
"""The worlds that the test suite searches, too."""

WORLDS = {
    **SMALL,
    "a job without a claim": Rules(
        tokens=(1,), has_unclaimed_job=True, worker_deaths=1, num_workers=2
    ),
    "three jobs": Rules(tokens=(1, 1, 1), num_workers=1),
    "two slots, and a request is delayed": Rules(
        tokens=(1, 1), slots=2, delays=1, num_workers=1, num_supervisors=1
    ),
    "two slots, and a worker dies": Rules(tokens=(1, 1), slots=2, worker_deaths=1, num_workers=2),
    "a sweep, and a worker dies": Rules(
        tokens=(1,), has_sweep=True, num_supervisors=1, worker_deaths=1, num_workers=2
    ),
    "a successor on the same node": Rules(
        tokens=(1,), has_one_node=True, supervisor_deaths=1, worker_deaths=1, num_workers=3
    ),
    "two delayed requests": Rules(tokens=(1,), delays=2, num_workers=1),
    "a load, and a worker dies": Rules(
        tokens=(1,), loads=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a frozen supervisor": Rules(tokens=(1,), expiries=1, num_workers=2),
    "two losses, and a worker dies": Rules(tokens=(1,), losses=2, worker_deaths=1, num_workers=2),
    "a dead worker's delayed request": Rules(tokens=(1,), delays=1, worker_deaths=1, num_workers=2),
    "a supervisor and a worker die": Rules(
        tokens=(1,), supervisor_deaths=1, worker_deaths=1, num_workers=3
    ),
    "a delayed request, and a successor on the same node": Rules(
        tokens=(1,), has_one_node=True, delays=1, supervisor_deaths=1, num_workers=2
    ),
    "a purge, and a worker dies": Rules(
        tokens=(1,), has_purge=True, worker_deaths=1, num_workers=2
    ),
    "two jobs, and a dead worker's delayed request": Rules(
        tokens=(1, 1), delays=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a load and an unload": Rules(tokens=(), loads=1, unloads=1, num_supervisors=1, num_workers=1),
    "a delayed request, and a supervisor dies": Rules(
        tokens=(1,), delays=1, supervisor_deaths=1, num_workers=2
    ),
    "a cancel, a loss, and a worker dies": Rules(
        tokens=(1,), cancelled=(0,), losses=1, worker_deaths=1, num_workers=2
    ),
    "a loss, and a dead worker's delayed request": Rules(
        tokens=(1,), losses=1, delays=1, worker_deaths=1, num_workers=2
    ),
    "a frozen supervisor, and a worker dies": Rules(
        tokens=(1,), expiries=1, worker_deaths=1, num_workers=3
    ),
    "a park": Rules(tokens=(1,), loads=1, parks=1, num_supervisors=1, num_workers=2),
    "two parks": Rules(tokens=(1,), loads=1, parks=2, num_supervisors=1, num_workers=3),
    "a close, and two jobs": Rules(
        tokens=(1, 1), loads=1, closes=1, num_supervisors=1, num_workers=2
    ),
    "a park and an unload": Rules(
        tokens=(), loads=1, unloads=1, parks=1, num_supervisors=1, num_workers=2
    ),
    "a park, and a worker dies": Rules(
        tokens=(1,), loads=1, parks=1, worker_deaths=1, num_supervisors=1, num_workers=3
    ),
    "two jobs, and a frozen supervisor": Rules(tokens=(1, 1), expiries=1, num_workers=2),
}
