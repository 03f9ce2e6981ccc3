"""A supervisor ends in good order while its worker is busy: the other takes over at once."""

from __future__ import annotations

import signal
import time

from jobs.storage.contact import STABLE_AFTER_S
from tests.faults.registry import Tally
from tests.helpers.waiting import wait_until
from tests.machines.client import Stream
from tests.machines.cluster import cluster
from tests.machines.evidence import (
    HANDOVER_S,
    WorkerWatch,
    check_finished,
    check_nothing_left,
    learn_reference,
    wait_serving,
)

_STEP_S = 0.02
_NUM_SLOTS = 8
_NUM_STREAMS = _NUM_SLOTS + 2  # two wait
_STREAM_S = 8.0


def supervisor_is_drained(tally: Tally) -> None:
    """SIGTERM to A's supervisor with jobs that run and jobs that wait: none is lost or doubled."""
    num_tokens = int(_STREAM_S / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        old = two.load_on(two.a)
        time.sleep(STABLE_AFTER_S)  # whoever has just started takes nothing yet
        streams = [two.b.client.stream(num_tokens) for _ in range(_NUM_STREAMS)]
        wait_until(lambda: _num_running(streams) >= _NUM_SLOTS, "all slots are busy", 30.0)
        assert two.a.supervisor is not None
        with WorkerWatch(two) as watch:
            asked_at = time.monotonic()
            two.a.supervisor.signal(signal.SIGTERM)
            assert two.a.supervisor.wait() == 0
            for stream in streams:
                stream.wait_ended(4 * _STREAM_S + 60.0)
            wait_serving(two)
        assert watch.most_at_once == {"0": 1}, watch.seen
        (first, *others) = watch.seen["0"]
        assert first == ("a", old)
        assert [name for name, _ in others] == ["b"]
        for stream in streams:
            check_finished(two, stream, num_tokens)
        gap = max(stream.longest_gap(asked_at - 1.0) for stream in streams)
        tally.note("longest gap", gap, HANDOVER_S)
        check_nothing_left(two)


def _num_running(streams: list[Stream]) -> int:
    return sum(len(stream.pieces) > 5 for stream in streams)
