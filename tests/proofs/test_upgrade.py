"""The upgrade, repeated: of the product's own Redis, and of a shared one."""

from __future__ import annotations

import time

from tests.helpers.upgrade import CHECKS, upgraded
from tests.proofs.registry import Result, Tally, proof


@proof(
    "upgrade",
    goal="0 jobs lost, 0 tokens lost or doubled, 0 old names left, 0 keys of others changed",
    full=24,
)
def test_a_newer_version_continues_the_jobs_of_a_killed_older_one(rounds: int) -> Result:
    """On the product's own Redis or a shared one; with two supervisors, or with one that is killed
    while it renames keys."""
    tally = Tally()
    num_jobs = num_tokens = 0
    for number in range(rounds):
        start = time.monotonic()
        num_kills, num_supervisors = number // 2 % 3, 1 + number // 6 % 2
        with upgraded(
            is_shared=bool(number % 2), num_kills=num_kills, num_supervisors=num_supervisors
        ) as upgrade:
            for check in CHECKS:
                for problem in getattr(upgrade, check)():
                    tally.check(False, problem)
                if check == "models":
                    tally.note("start to all models ready", time.monotonic() - start, 20.0)
            num_jobs += len(upgrade.open_jobs)
            num_tokens += sum(len(job.events) for job in upgrade.open_jobs.values())
        tally.rounds += 1
    return tally.result(f"{num_jobs} jobs went on, after {num_tokens} events")
