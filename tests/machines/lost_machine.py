"""A machine is lost, or is only out of reach: its jobs go on at the other one."""

from __future__ import annotations

import time

from tests.faults.registry import Tally
from tests.helpers.waiting import wait_until
from tests.machines.client import Stream
from tests.machines.cluster import Cluster, cluster
from tests.machines.evidence import (
    RESUME_S,
    TAKEOVER_S,
    WorkerWatch,
    attempts,
    check_finished,
    check_log,
    check_nothing_left,
    learn_reference,
    wait_serving,
)
from tests.machines.machine import Cut

_STEP_S = 0.02
_STREAM_S = 15.0
_OUT_S = 13.0
_NUM_STREAMS = 3


def power_fails(tally: Tally) -> None:
    """All of A is killed at once; what B's clients read, and what runs for no client, goes on."""
    num_tokens = int(_STREAM_S / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        two.load_on(two.a)
        streams = _streams_at_b(two, num_tokens)
        background = two.a.client.submit(num_tokens)
        two.driver.wait_running(background)
        lost_at = time.monotonic()
        two.a.kill()
        for stream in streams:
            stream.wait_ended(_STREAM_S + 120.0)
        two.driver.wait_ended(background, 120.0)
        for stream in streams:
            check_finished(two, stream, num_tokens)
        check_log(two, background, num_tokens)
        assert attempts(two, streams) == [2] * len(streams)
        tally.note("until the jobs go on", _takeover(streams, lost_at), TAKEOVER_S)
        _come_back(two)
        check_nothing_left(two)


def machine_is_out_of_reach(tally: Tally, how: Cut = "silence") -> None:
    """A's cables are pulled; later A is back and finds that its model has moved.

    The client of A's own API reads nothing meanwhile, and then all.
    """
    num_tokens = int((_OUT_S + _STREAM_S) / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        old = two.load_on(two.a)
        lonely = two.a.client.stream(num_tokens)
        streams = _streams_at_b(two, num_tokens)
        lost_at = time.monotonic()
        two.a.cut(how=how)
        wait_until(lambda: two.b.worker(), "B starts a worker", TAKEOVER_S + 30.0)
        time.sleep(max(0.0, lost_at + _OUT_S - time.monotonic()))
        assert not any(stream.ended_at for stream in streams)
        two.a.join()
        back_at = time.monotonic()
        wait_until(lambda: two.a.worker() != old, "A's worker ends", 60.0)
        tally.note("until the model is given up", time.monotonic() - back_at, TAKEOVER_S)
        with WorkerWatch(two) as watch:
            for stream in (lonely, *streams):
                stream.wait_ended(_STREAM_S + 120.0)
            wait_serving(two)
        assert watch.most_at_once == {"0": 1}, watch.seen
        assert [name for name, _ in watch.seen["0"]] == ["b"], watch.seen
        for stream in (lonely, *streams):
            check_finished(two, stream, num_tokens)
        assert attempts(two, [lonely, *streams]) == [2] * (len(streams) + 1)
        tally.note("until the jobs go on", _takeover(streams, lost_at), TAKEOVER_S)
        waited = lonely.silence_after(back_at)
        tally.note("until the first machine's client reads on", waited, RESUME_S)
        two.load_on(two.a, "fake", "1")
        assert two.a.client.complete(5, "1") == two.b.client.complete(5, "1")
        check_nothing_left(two)


def _streams_at_b(two: Cluster, num_tokens: int) -> list[Stream]:
    streams = [two.b.client.stream(num_tokens) for _ in range(_NUM_STREAMS)]
    for stream in streams:
        stream.wait_running()
    return streams


def _takeover(streams: list[Stream], lost_at: float) -> float:
    """The longest silence that began with the loss: a last token may come just after it."""
    return max(stream.longest_gap(lost_at - 1.0) for stream in streams)


def _come_back(two: Cluster) -> None:
    """A boots: B keeps the model."""
    kept = two.b.worker()
    two.a.boot()
    with WorkerWatch(two) as watch:
        two.start(two.a)
        wait_serving(two)
    assert watch.seen == {"0": [("b", kept)]}
