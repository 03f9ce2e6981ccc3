"""Two machines with the same host name and the same process ids are still two."""

from __future__ import annotations

import json
import signal
import time
from typing import Literal

from tests.faults.registry import Tally
from tests.helpers.waiting import wait_until
from tests.machines.cluster import Cluster, cluster
from tests.machines.evidence import (
    RESUME_S,
    TAKEOVER_S,
    WorkerWatch,
    attempts,
    check_finished,
    check_nothing_left,
    learn_reference,
    wait_serving,
)

_NAMES = ("mac", "mac")
_STEP_S = 0.02
_WATCH_S = 13.0  # longer than an owner's time

How = Literal["terminated", "killed"]


def second_machine_starts(tally: Tally) -> None:
    """A runs a model and streams; B is started beside it and takes nothing."""
    num_tokens = int((_WATCH_S + 5.0) / _STEP_S)
    with cluster(_NAMES) as two:
        two.start(two.a)
        learn_reference(two)
        worker = two.load_on(two.a)
        stream = two.a.client.stream(num_tokens)
        stream.wait_running()
        with WorkerWatch(two) as watch:
            two.start(two.b)
            _check_twins(two)
            beside = two.b.client.stream(num_tokens)
            for each in (stream, beside):
                each.wait_ended(_WATCH_S + 60.0)
        assert watch.seen == {"0": [("a", worker)]}
        for each in (stream, beside):
            check_finished(two, each, num_tokens)
        assert attempts(two, [stream, beside]) == [1, 1]
        check_nothing_left(two)
        tally.note("longest gap", stream.longest_gap(), RESUME_S)


def supervisor_is_restarted(tally: Tally, how: How) -> None:
    """A's supervisor ends and comes again beside B: there is one worker at any time."""
    num_tokens = int((_WATCH_S + 5.0) / _STEP_S)
    with cluster(_NAMES) as two:
        two.start()
        learn_reference(two)
        two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        supervisor = two.a.supervisor
        assert supervisor is not None
        with WorkerWatch(two) as watch:
            ended_at = time.monotonic()
            supervisor.signal(signal.SIGTERM if how == "terminated" else signal.SIGKILL)
            supervisor.wait()
            two.a.start_supervisor()
            for stream in streams:
                stream.wait_ended(_WATCH_S + 90.0)
            wait_serving(two)
        assert watch.most_at_once == {"0": 1}, watch.seen
        assert len(watch.seen["0"]) == 2, watch.seen  # the old one and the new one, wherever
        for stream in streams:
            check_finished(two, stream, num_tokens)
        check_nothing_left(two)
        gap = max(stream.longest_gap(ended_at) for stream in streams)
        tally.note("longest gap at a restart", gap, TAKEOVER_S)


def both_start_at_once(tally: Tally, *, are_clones: bool = False) -> None:
    """A model is wanted when both supervisors start in the same moment: one loads it.

    Clones have the same identity in their state folders too.
    """
    num_tokens = int(_WATCH_S / _STEP_S)
    with cluster(_NAMES) as two:
        for machine in two.machines:
            machine.start_api()
        two.start_supervisors()
        learn_reference(two)
        for machine in two.machines:
            assert machine.supervisor is not None
            machine.supervisor.signal(signal.SIGTERM)
            machine.supervisor.wait()
        if are_clones:
            _clone_identity(two)
        desired = two.driver.load("fake-20ms")
        with WorkerWatch(two) as watch:
            started_at = time.monotonic()
            for machine in two.machines:
                machine.start_supervisor(is_waited_for=False)
            wait_serving(two)
            tally.note("until it is ready", time.monotonic() - started_at, TAKEOVER_S)
            _check_twins(two)
            streams = [machine.client.stream(num_tokens) for machine in two.machines]
            for stream in streams:  # a theft would show within an owner's time
                stream.wait_ended(_WATCH_S + 60.0)
        assert watch.most_at_once == {"0": 1}, watch.seen
        assert len(watch.seen["0"]) == 1, watch.seen
        for stream in streams:
            check_finished(two, stream, num_tokens)
        assert attempts(two, streams) == [1, 1]
        two.driver.text_of(desired.load_job)
        check_nothing_left(two)


def _clone_identity(two: Cluster) -> None:
    """B has been A's copy, down to what its state folder says of the machine that it is on."""
    files = [machine.folder / "state" / "node.json" for machine in two.machines]
    ours, theirs = (json.loads(file.read_text()) for file in files)
    files[1].write_text(json.dumps({**theirs, "uid": ours["uid"], "tokens": ours["tokens"]}))


def _check_twins(two: Cluster) -> None:
    """The premise: nothing that a machine says of itself tells the two apart."""
    programs = [machine.supervisor for machine in two.machines]
    wait_until(lambda: all(program.pid for program in programs), "both run")
    inner = {
        machine.inner_pid(program.pid)
        for machine, program in zip(two.machines, programs, strict=True)
    }
    assert len(inner) == 1, inner
