"""The job protocol in all orders of all steps, with the faults that may happen between them."""

from __future__ import annotations

import itertools

from tests.explorer.planted import FAULTS, LARGE_FAULTS
from tests.explorer.search import Search
from tests.explorer.world import JobWorld
from tests.explorer.worlds import WORLDS
from tests.proofs.registry import Result, Tally, proof

_LEAST_STATES = 200_000
_MOST_STATES = 1_000_000  # of one world: each ends far below


@proof(
    "job-protocol",
    goal=f"each world to its last state, >= {_LEAST_STATES} states in all, 0 violations, each "
    "planted fault found",
    full=len(WORLDS),
)
def test_no_order_of_steps_breaks_the_job_protocol(rounds: int) -> Result:
    tally, num_states, num_moves = Tally(), 0, 0
    for name, rules in itertools.islice(WORLDS.items(), rounds):
        result = Search(JobWorld(rules), _MOST_STATES).run()
        tally.check(result.is_whole and not result.violations, f"{name}: {result}")
        num_states += result.num_states
        num_moves += result.num_moves
        tally.rounds += 1
    faults = (*FAULTS, *LARGE_FAULTS)
    for fault in faults:
        complaint = fault.complaint()
        tally.check(complaint is None, str(complaint))
    tally.note_least("states", num_states, _LEAST_STATES, "")
    return tally.result(f"{tally.rounds} worlds, {num_moves} moves, {len(faults)} planted faults")
