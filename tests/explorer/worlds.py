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
    "a job gives way, and a request is delayed": Rules(
        tokens=(1,), batch=(0,), yields=1, delays=1, num_supervisors=1, num_workers=1
    ),
    "both classes are held, and a job gives way": Rules(
        tokens=(1, 1),
        batch=(1,),
        yields=1,
        holds=("hold batch", "hold interactive"),
        num_supervisors=1,
        num_workers=1,
    ),
    "a line gives way, and its runner and its worker die": Rules(
        tokens=(1,),
        lines=(0,),
        yields=1,
        runner_deaths=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a line that is run again, and a delayed request": Rules(
        tokens=(1,), lines=(0,), retries=1, delays=1, num_supervisors=1, num_workers=1
    ),
    "a job gives way, a loss, and a delayed request": Rules(
        tokens=(1,), batch=(0,), yields=1, losses=1, delays=1, num_supervisors=1, num_workers=1
    ),
}
"""The worlds that the test suite searches, too."""

_YIELDS = {
    "a job gives way twice, a request is delayed, and a worker dies": Rules(
        tokens=(2,),
        batch=(0,),
        yields=2,
        delays=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a job gives way twice, and two requests are delayed": Rules(
        tokens=(1,), batch=(0,), yields=2, delays=2, num_supervisors=1, num_workers=1
    ),
    "two jobs give way, and a reply is lost": Rules(
        tokens=(1, 1), batch=(0, 1), slots=2, yields=2, losses=1, num_supervisors=1, num_workers=1
    ),
    "a job gives way beside an interactive one, and a worker dies": Rules(
        tokens=(1, 1), batch=(0,), yields=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a cancelled job gives way, and a request is delayed": Rules(
        tokens=(1,),
        batch=(0,),
        cancelled=(0,),
        yields=1,
        delays=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "a cancelled job gives way, a loss, and a worker dies": Rules(
        tokens=(1,),
        batch=(0,),
        cancelled=(0,),
        yields=1,
        losses=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a job gives way, another is cancelled, and a worker dies": Rules(
        tokens=(1, 1),
        batch=(0, 1),
        cancelled=(1,),
        yields=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a job gives way, and a frozen supervisor": Rules(
        tokens=(1,), batch=(0,), yields=1, expiries=1, num_workers=2
    ),
    "a job gives way, and a supervisor dies": Rules(
        tokens=(1,), batch=(0,), yields=1, supervisor_deaths=1, num_workers=2
    ),
    "an interactive job is queued again, a delay, and a worker dies": Rules(
        tokens=(1,), yields=1, delays=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a purge, a job is queued again, and a worker dies": Rules(
        tokens=(1,), has_purge=True, yields=1, worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a sweep, a job gives way, and a worker dies": Rules(
        tokens=(1,),
        batch=(0,),
        has_sweep=True,
        yields=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a park, and a job gives way": Rules(
        tokens=(1,), batch=(0,), loads=1, parks=1, yields=1, num_supervisors=1, num_workers=2
    ),
    "a close, and a job gives way": Rules(
        tokens=(1,), batch=(0,), loads=1, closes=1, yields=1, num_supervisors=1, num_workers=2
    ),
}
"""Worlds in which a worker hands a running job back to its queue."""

_ORDER = {
    "a class is held, a job gives way, and a worker dies": Rules(
        tokens=(1,),
        batch=(0,),
        yields=1,
        holds=("hold batch",),
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a class is drained, and a request is lost": Rules(
        tokens=(1,),
        batch=(0,),
        yields=1,
        holds=("drain batch",),
        losses=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "two callers, and a worker dies": Rules(
        tokens=(1, 1), callers=("a", "b"), worker_deaths=1, num_supervisors=1, num_workers=2
    ),
    "a caller that runs one job at a time, in both classes": Rules(
        tokens=(1, 1, 1),
        batch=(1,),
        callers=("a", "a", "b"),
        max_running=1,
        slots=2,
        yields=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "a caller that runs one job at a time, and a reply is lost": Rules(
        tokens=(1, 1, 1),
        callers=("a", "b", "a"),
        max_running=1,
        slots=2,
        losses=1,
        num_supervisors=1,
        num_workers=1,
    ),
}
"""Worlds of holds and of the order of takes."""

_LINES = {
    "a line beside another job, and a dead runner's delayed request": Rules(
        tokens=(1, 1),
        lines=(1,),
        yields=1,
        delays=1,
        runner_deaths=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "a cancelled line gives way, and a loss": Rules(
        tokens=(1,),
        lines=(0,),
        cancelled=(0,),
        yields=1,
        losses=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "a sweep of a line, and its runner dies": Rules(
        tokens=(1,),
        lines=(0,),
        has_sweep=True,
        yields=1,
        runner_deaths=1,
        num_supervisors=1,
        num_workers=1,
    ),
    "a line that is run again, and a loss": Rules(
        tokens=(1,), lines=(0,), retries=1, yields=1, losses=1, num_supervisors=1, num_workers=1
    ),
    "a line that is run again, a delayed request, and a worker dies": Rules(
        tokens=(1,),
        lines=(0,),
        retries=1,
        delays=1,
        worker_deaths=1,
        num_supervisors=1,
        num_workers=2,
    ),
    "a cancelled line that is run again, and a loss": Rules(
        tokens=(1,),
        lines=(0,),
        cancelled=(0,),
        retries=1,
        losses=1,
        num_supervisors=1,
        num_workers=1,
    ),
}
"""Worlds of lines of a batch: their runner submits, reads and deletes them."""

WORLDS = {
    **SMALL,
    **_YIELDS,
    **_ORDER,
    **_LINES,
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
