"""The job protocol in all orders of all steps, with faults between them."""

from __future__ import annotations

import itertools

from tests.explorer.search import Search
from tests.explorer.seeded_faults import FAULTS, LARGE_FAULTS
from tests.explorer.world import JobWorld
from tests.explorer.worlds import WORLDS
from tests.proofs.registry import Result, Tally, proof

_MIN_STATES = 200_000
_MAX_STATES = 1_000_000  # of one world: none has nearly as many


@proof(
    "job-protocol",
    goal=f"each world to its last state, >= {_MIN_STATES} states in all, 0 violations, each "
    "seeded fault found",
    full=len(WORLDS),
)
def test_no_order_of_steps_breaks_the_job_protocol(rounds: int) -> Result:
    tally, num_states, num_moves = Tally(), 0, 0
    for name, rules in itertools.islice(WORLDS.items(), rounds):
        result = Search(JobWorld(rules), _MAX_STATES).run()
        tally.check(result.is_complete and not result.violations, f"{name}: {result}")
        num_states += result.num_states
        num_moves += result.num_moves
        tally.rounds += 1
    faults = (*FAULTS, *LARGE_FAULTS)
    for fault in faults:
        failure = fault.failure()
        tally.check(failure is None, str(failure))
    tally.note_least("states", num_states, _MIN_STATES, "")
    return tally.result(f"{tally.rounds} worlds, {num_moves} moves, {len(faults)} seeded faults")
