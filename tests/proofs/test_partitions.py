"""Network partitions between machines that share one Redis (``tests/machines``)."""

from __future__ import annotations

from functools import partial

from tests.machines.half_open import (
    part_is_muted,
    supervisor_hears_nothing,
    worker_hears_nothing,
)
from tests.machines.lost_machine import machine_is_out_of_reach
from tests.machines.partitions import (
    api_is_away_too_long,
    api_is_cut_off,
    engine_is_cut_off,
    idle_machine_is_cut_off,
)
from tests.machines.rounds import WHOLE, play
from tests.proofs.registry import Result, proof


@proof(
    "machines-out-of-reach",
    goal="jobs continue on the other machine within 10 s; reconnected, the first releases the "
    f"model; {WHOLE}",
    full=10,
    fast=1,
    timeout_s=300,
)
def test_the_model_of_an_unreachable_machine_moves_to_the_other(rounds: int) -> Result:
    down = partial(machine_is_out_of_reach, how="down")
    return play(rounds, machine_is_out_of_reach, down)


@proof(
    "machines-engine-partition",
    goal=f"detected within 6 s; streams continue within 2 s of the reconnection, or within 10 s on "
    f"the other machine; {WHOLE}",
    full=12,
    fast=1,
    timeout_s=300,
)
def test_supervisor_and_worker_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    times = [partial(engine_is_cut_off, out_s=out_s) for out_s in (8.0, 3.0, 60.0)]
    return play(rounds, *times, *(partial(each, how="down") for each in times))


@proof(
    "machines-api-partition",
    goal=f"detected within 6 s; its streams continue within 2 s of the reconnection, others do not "
    f"wait; {WHOLE}",
    full=16,
    fast=1,
    timeout_s=300,
)
def test_an_api_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    times = [partial(api_is_cut_off, out_s=out_s) for out_s in (8.0, 3.0, 60.0)]
    downs = [partial(each, how="down") for each in times]
    return play(rounds, *times, api_is_away_too_long, *downs)


@proof(
    "machines-idle-partition",
    goal=f"no model moves, no client waits 2 s; {WHOLE}",
    full=9,
)
def test_an_idle_machine_without_a_network_for_3_8_and_60_seconds(rounds: int) -> Result:
    return play(rounds, *(partial(idle_machine_is_cut_off, out_s=out_s) for out_s in (8, 3, 60)))


@proof(
    "machines-half-open",
    goal=f"detected within 6 s; streams continue within 2 s, of a new worker within 10 s; {WHOLE}",
    full=14,
    fast=2,
    timeout_s=400,
)
def test_the_connections_of_one_process_are_half_open(rounds: int) -> Result:
    cables = (supervisor_hears_nothing, worker_hears_nothing)
    muted = [partial(part_is_muted, part=part) for part in ("worker", "supervisor", "api")]
    down = [partial(each, how="down") for each in cables]
    return play(rounds, cables[0], muted[0], *muted[1:], cables[1], *down)
