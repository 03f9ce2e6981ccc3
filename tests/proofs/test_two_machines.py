"""Two machines over one Redis, each with an API, a supervisor and workers (``tests/machines``)."""

from __future__ import annotations

from functools import partial

from tests.machines.dead_api import api_dies
from tests.machines.drain import supervisor_is_drained
from tests.machines.equal_names import (
    both_start_at_once,
    second_machine_starts,
    supervisor_is_restarted,
)
from tests.machines.lost_machine import power_fails
from tests.machines.newer_version import newer_version_is_beside
from tests.machines.redis_pause import pause_of_redis
from tests.machines.rounds import WHOLE, play
from tests.proofs.registry import Result, proof


@proof(
    "machines-redis-pause-12s",
    goal=f"no model moves; streams continue within 2 s of the end; {WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_no_model_moves_while_redis_is_away_for_12_seconds(rounds: int) -> Result:
    busy = partial(pause_of_redis, pause_s=12.0, is_other_busy=True)
    return play(rounds, busy, partial(pause_of_redis, pause_s=12.0, is_other_busy=False))


@proof(
    "machines-redis-pause-40s",
    goal=f"no model moves; streams continue within 2 s of the end; {WHOLE}",
    full=10,
)
def test_no_model_moves_while_redis_is_away_for_40_seconds(rounds: int) -> Result:
    busy = partial(pause_of_redis, pause_s=40.0, is_other_busy=True)
    return play(rounds, busy, partial(pause_of_redis, pause_s=40.0, is_other_busy=False))


@proof(
    "machines-equal-names",
    goal=f"0 changes of owner; one worker at any time; {WHOLE}",
    full=15,
    fast=2,
    timeout_s=400,
)
def test_machines_with_equal_host_names_and_process_ids_do_not_disturb_each_other(
    rounds: int,
) -> Result:
    return play(
        rounds,
        second_machine_starts,
        partial(both_start_at_once, are_clones=True),
        both_start_at_once,
        partial(supervisor_is_restarted, how="killed"),
        partial(supervisor_is_restarted, how="terminated"),
    )


@proof(
    "machines-power-fails",
    goal=f"jobs continue on the other machine within 10 s; {WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_jobs_of_a_dead_machine_continue_on_the_other(rounds: int) -> Result:
    return play(rounds, power_fails)


@proof(
    "machines-dead-api",
    goal="each job of a dead API ends once, on whichever machine it runs; 0 left behind",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_jobs_of_a_dead_api_end_on_all_machines(rounds: int) -> Result:
    return play(rounds, api_dies, partial(api_dies, is_machine_lost=True))


@proof(
    "machines-drain",
    goal=f"the other machine takes over within 5 s; {WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_other_machine_takes_over_the_jobs_of_a_stopped_supervisor(rounds: int) -> Result:
    return play(rounds, supervisor_is_drained)


@proof(
    "machines-newer-version",
    goal=f"a newer version's entries are kept and do not hide others; no model is stopped; {WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_a_newer_version_shares_the_redis(rounds: int) -> Result:
    return play(rounds, newer_version_is_beside)
