"""One process alone hears nothing from Redis: its cable is dead, or its way swallows all."""

from __future__ import annotations

import time

from tests.faults.registry import Tally
from tests.machines.cluster import cluster
from tests.machines.evidence import (
    NOTICE_S,
    RESUME_S,
    TAKEOVER_S,
    WorkerWatch,
    attempts,
    check_finished,
    check_nothing_left,
    learn_reference,
    wait_serving,
)
from tests.machines.machine import Cut
from tests.machines.notice import NoticeWatch, connections

_STEP_S = 0.02
_AFTER_S = 12.0
_OUT_S = 15.0  # longer than an owner's time


def supervisor_hears_nothing(tally: Tally, how: Cut = "silence") -> None:
    """A's supervisor is cut off alone: its worker lives, so nothing moves."""
    num_tokens = int((_OUT_S + _AFTER_S) / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        worker = two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        with WorkerWatch(two) as watch:
            with NoticeWatch(two.a, connections(two.a, "supervisor")) as notice:
                lost_at = time.monotonic()
                two.a.cut("supervisor", how=how)
                time.sleep(_OUT_S)
            two.a.join("supervisor")
            for stream in streams:
                stream.wait_ended(_AFTER_S + 60.0)
            wait_serving(two)
        assert watch.seen == {"0": [("a", worker)]}
        for stream in streams:
            check_finished(two, stream, num_tokens)
        assert attempts(two, streams) == [1, 1]
        gap = max(stream.longest_gap() for stream in streams)
        tally.note("longest gap", gap, RESUME_S)
        waited = notice.seconds("supervisor", lost_at)
        tally.note("until the supervisor notices", waited, NOTICE_S)
        check_nothing_left(two)


def worker_hears_nothing(tally: Tally, how: Cut = "silence") -> None:
    """A's worker is cut off alone: its supervisor replaces it, on the same machine."""
    num_tokens = int((_OUT_S + _AFTER_S) / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        old = two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        with WorkerWatch(two) as watch:
            with NoticeWatch(two.a, connections(two.a, "worker")) as notice:
                lost_at = time.monotonic()
                two.a.cut("worker", how=how)
                time.sleep(_OUT_S)
            two.a.join("worker")
            back_at = time.monotonic()
            for stream in streams:
                stream.wait_ended(_OUT_S + _AFTER_S + 60.0)
            wait_serving(two)
        assert watch.most_at_once == {"0": 1}, watch.seen
        assert {name for name, _ in watch.seen["0"]} == {"a"}, watch.seen
        assert watch.seen["0"][0] == ("a", old)
        for stream in streams:
            check_finished(two, stream, num_tokens)
        # A new worker at A cannot reach Redis either, before the cable is back.
        waited = max(stream.silence_after(back_at) for stream in streams)
        tally.note("until the streams go on", waited, TAKEOVER_S)
        waited = notice.seconds("worker", lost_at)
        tally.note("until the worker notices", waited, NOTICE_S)
        check_nothing_left(two)


def part_is_muted(tally: Tally, part: str, out_s: float = 7.0) -> None:
    """What the part sends is taken and lost, so that only its own clock can tell; then it all comes
    through, late."""
    num_tokens = int((out_s + _AFTER_S) / _STEP_S)
    with cluster(muted=part) as two:
        two.start()
        learn_reference(two)
        two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        assert two.muting is not None
        with WorkerWatch(two) as watch:
            with NoticeWatch(two.a, {part: two.muting.listening_ports}) as notice:
                lost_at = time.monotonic()
                two.muting.hold_data()
                time.sleep(out_s)
            two.muting.release_data()
            back_at = time.monotonic()
            for stream in streams:
                stream.wait_ended(_AFTER_S + 60.0)
            wait_serving(two)
        assert {name for name, _ in watch.seen["0"]} == {"a"}, watch.seen
        for stream in streams:
            check_finished(two, stream, num_tokens)
        waited = max(stream.silence_after(back_at) for stream in streams)
        tally.note(f"{part}: until the streams go on", waited, RESUME_S)
        waited = notice.seconds_to_first(part, lost_at)
        tally.note(f"{part}: until it gives a connection up", waited, NOTICE_S)
        if part == "api":  # the others hear only what can wait for their own next look
            waited = notice.seconds(part, lost_at)
            tally.note(f"{part}: until it listens elsewhere", waited, NOTICE_S)
        check_nothing_left(two)
