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

WORLDS = SMALL
