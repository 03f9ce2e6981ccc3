"""Two machines over one Redis, each with an API, a supervisor and workers (``tests/machines``)."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable
from functools import partial

from tests.helpers.netns import need_network
from tests.machines.dead_api import api_dies
from tests.machines.drain import supervisor_is_drained
from tests.machines.equal_names import (
    both_start_at_once,
    second_machine_starts,
    supervisor_is_restarted,
)
from tests.machines.half_open import (
    part_is_muted,
    supervisor_hears_nothing,
    worker_hears_nothing,
)
from tests.machines.lost_machine import machine_is_out_of_reach, power_fails
from tests.machines.newer_version import newer_version_is_beside
from tests.machines.partitions import (
    api_is_away_too_long,
    api_is_cut_off,
    engine_is_cut_off,
    idle_machine_is_cut_off,
)
from tests.machines.redis_pause import pause_of_redis
from tests.proofs.registry import Result, Tally, proof

Scenario = Callable[[Tally], None]

_WHOLE = "0 tokens lost or doubled, 0 jobs left behind"


def _play(rounds: int, *scenarios: Scenario) -> Result:
    """So many rounds, each with the next of the scenarios."""
    need_network()
    tally = Tally()
    for scenario in itertools.islice(itertools.cycle(scenarios), rounds):
        try:
            scenario(tally)
        except Exception as error:
            traceback.print_exc()
            what = " ".join(str(error).split())[:200]
            tally.check(False, f"{_named(scenario)}: {type(error).__name__}: {what}")
        tally.rounds += 1
    return tally.result()


def _named(scenario: Scenario) -> str:
    if not isinstance(scenario, partial):
        return getattr(scenario, "__name__", "")
    options = ", ".join(f"{name}={value}" for name, value in scenario.keywords.items())
    return f"{scenario.func.__name__}({options})"


@proof(
    "machines-redis-pause-12s",
    goal=f"no model moves; streams go on within 2 s of the end; {_WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_no_model_moves_while_redis_is_away_for_12_seconds(rounds: int) -> Result:
    busy = partial(pause_of_redis, pause_s=12.0, is_other_busy=True)
    return _play(rounds, busy, partial(pause_of_redis, pause_s=12.0, is_other_busy=False))


@proof(
    "machines-redis-pause-40s",
    goal=f"no model moves; streams go on within 2 s of the end; {_WHOLE}",
    full=10,
)
def test_no_model_moves_while_redis_is_away_for_40_seconds(rounds: int) -> Result:
    busy = partial(pause_of_redis, pause_s=40.0, is_other_busy=True)
    return _play(rounds, busy, partial(pause_of_redis, pause_s=40.0, is_other_busy=False))


@proof(
    "machines-equal-names",
    goal=f"0 thefts; one worker at any time; {_WHOLE}",
    full=12,
    fast=2,
    timeout_s=400,
)
def test_machines_with_equal_host_names_and_process_ids_do_not_disturb_each_other(
    rounds: int,
) -> Result:
    return _play(
        rounds,
        second_machine_starts,
        both_start_at_once,
        partial(supervisor_is_restarted, how="killed"),
        partial(supervisor_is_restarted, how="terminated"),
    )


@proof(
    "machines-power-fails",
    goal=f"jobs go on at the other machine within 10 s; {_WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_jobs_of_a_machine_that_is_gone_go_on_at_the_other(rounds: int) -> Result:
    return _play(rounds, power_fails)


@proof(
    "machines-out-of-reach",
    goal=f"jobs go on at the other machine within 10 s; back again, the first gives the model up; "
    f"{_WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_a_machine_that_was_out_of_reach_finds_its_model_elsewhere(rounds: int) -> Result:
    down = partial(machine_is_out_of_reach, how="down")
    return _play(rounds, machine_is_out_of_reach, down)


@proof(
    "machines-engine-partition",
    goal=f"noticed within 6 s; streams go on within 2 s of the cable's return, or within 10 s at "
    f"the other machine; {_WHOLE}",
    full=12,
    fast=1,
    timeout_s=300,
)
def test_supervisor_and_worker_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    times = [partial(engine_is_cut_off, out_s=out_s) for out_s in (8.0, 3.0, 60.0)]
    return _play(rounds, *times, *(partial(each, how="down") for each in times))


@proof(
    "machines-api-partition",
    goal=f"noticed within 6 s; its streams go on within 2 s of the cable's return, others do not "
    f"wait; {_WHOLE}",
    full=16,
    fast=1,
    timeout_s=300,
)
def test_an_api_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    times = [partial(api_is_cut_off, out_s=out_s) for out_s in (8.0, 3.0, 60.0)]
    downs = [partial(each, how="down") for each in times]
    return _play(rounds, *times, api_is_away_too_long, *downs)


@proof(
    "machines-idle-partition",
    goal=f"nothing moves, nobody waits 2 s; {_WHOLE}",
    full=9,
)
def test_an_idle_machine_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    return _play(rounds, *(partial(idle_machine_is_cut_off, out_s=out_s) for out_s in (8, 3, 60)))


@proof(
    "machines-dead-api",
    goal="each job of a dead API ends once, on whichever machine it runs; 0 left behind",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_jobs_of_a_dead_api_end_on_all_machines(rounds: int) -> Result:
    return _play(rounds, api_dies, partial(api_dies, is_machine_lost=True))


@proof(
    "machines-drain",
    goal=f"the other machine takes over within 5 s; {_WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_a_supervisor_that_ends_hands_its_jobs_over(rounds: int) -> Result:
    return _play(rounds, supervisor_is_drained)


@proof(
    "machines-newer-version",
    goal=f"what a newer version wrote survives and hides nothing; no model is stopped; {_WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_a_newer_version_shares_the_redis(rounds: int) -> Result:
    return _play(rounds, newer_version_is_beside)


@proof(
    "machines-half-open",
    goal=f"noticed within 6 s; streams go on within 2 s, of a new worker within 10 s; {_WHOLE}",
    full=14,
    fast=2,
    timeout_s=400,
)
def test_one_process_alone_hears_nothing(rounds: int) -> Result:
    cables = (supervisor_hears_nothing, worker_hears_nothing)
    muted = [partial(part_is_muted, part=part) for part in ("worker", "supervisor", "api")]
    down = [partial(each, how="down") for each in cables]
    return _play(rounds, cables[0], muted[0], *muted[1:], cables[1], *down)
