"""A cable is out for some seconds in mid-stream: the supervisor's and worker's, an API's, B's."""

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
_AFTER_S = 13.0  # longer than an owner's time: a late theft would show
_HELD_S = 4.0  # an engine that is away for less keeps its model


def engine_is_cut_off(tally: Tally, out_s: float, how: Cut = "silence") -> None:
    """A's supervisor and worker reach Redis no more; both APIs stream on."""
    num_tokens = int((out_s + _AFTER_S) / _STEP_S)
    parts = ("supervisor", "worker")
    with cluster() as two:
        two.start()
        learn_reference(two)
        worker = two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        with WorkerWatch(two) as watch:
            with NoticeWatch(two.a, connections(two.a, *parts)) as notice:
                lost_at = time.monotonic()
                two.a.cut(*parts, how=how)
                time.sleep(out_s)
            two.a.join(*parts)
            back_at = time.monotonic()
            for stream in streams:
                stream.wait_ended(out_s + _AFTER_S + 120.0)
            wait_serving(two)
        for stream in streams:
            check_finished(two, stream, num_tokens)
        if watch.seen == {"0": [("a", worker)]}:
            assert attempts(two, streams) == [1, 1]
            waited = max(stream.silence_after(back_at) for stream in streams)
            tally.note("until a stream goes on", waited, RESUME_S)
        else:
            assert out_s > _HELD_S, watch.seen
            assert [name for name, _ in watch.seen["0"]] == ["a", "b"], watch.seen
            assert attempts(two, streams) == [2, 2]
            gap = max(stream.longest_gap(lost_at - 1.0) for stream in streams)
            tally.note("until the jobs go on at the other", gap, TAKEOVER_S)
        if out_s > NOTICE_S:
            for part in parts:
                tally.note(f"until the {part} notices", notice.seconds(part, lost_at), NOTICE_S)
        check_nothing_left(two)


def api_is_cut_off(tally: Tally, out_s: float, how: Cut = "silence") -> None:
    """A's API reaches Redis no more; its streams wait, those of B's do not."""
    num_tokens = int((out_s + _AFTER_S) / _STEP_S)
    # As long as an API may be away without its jobs being ended.
    with cluster(MGS_ORPHAN_S=str(out_s + 30.0)) as two:
        two.start()
        learn_reference(two)
        worker = two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        with WorkerWatch(two) as watch:
            with NoticeWatch(two.a, connections(two.a, "api")) as notice:
                lost_at = time.monotonic()
                two.a.cut("api", how=how)
                time.sleep(out_s)
            two.a.join("api")
            back_at = time.monotonic()
            for stream in streams:
                stream.wait_ended(_AFTER_S + 60.0)
        assert watch.seen == {"0": [("a", worker)]}
        for stream in streams:
            check_finished(two, stream, num_tokens)
        assert attempts(two, streams) == [1, 1]
        tally.note("until its stream goes on", streams[0].silence_after(back_at), RESUME_S)
        tally.note("the other's longest gap", streams[1].longest_gap(), RESUME_S)
        if out_s > NOTICE_S:
            tally.note("until the api notices", notice.seconds("api", lost_at), NOTICE_S)
        wait_serving(two)
        check_nothing_left(two)


def api_is_away_too_long(tally: Tally, out_s: float = 20.0) -> None:
    """Its jobs are ended meanwhile, once; back again, it tells its clients so."""
    num_tokens = int((out_s + 20.0) / _STEP_S)
    with cluster(MGS_ORPHAN_S="5") as two:
        two.start()
        learn_reference(two)
        two.load_on(two.a)
        streams = [machine.client.stream(num_tokens) for machine in two.machines]
        for stream in streams:
            stream.wait_running()
        two.a.cut("api")
        two.driver.wait_ended(streams[0].job_id, out_s)
        time.sleep(1.0)
        two.a.join("api")
        back_at = time.monotonic()
        for stream in streams:
            stream.wait_ended(60.0)
        assert streams[0].error["code"] == "job_cancelled", streams[0].error
        tally.note("until the client gets an error", streams[0].ended_at - back_at, RESUME_S)
        check_finished(two, streams[1], num_tokens)
        wait_serving(two)
        check_nothing_left(two)


def idle_machine_is_cut_off(tally: Tally, out_s: float, how: Cut = "silence") -> None:
    """B, which runs nothing, is away and comes back: A's streams do not feel it."""
    num_tokens = int((out_s + _AFTER_S) / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        worker = two.load_on(two.a)
        stream = two.a.client.stream(num_tokens)
        stream.wait_running()
        with WorkerWatch(two) as watch:
            two.b.cut(how=how)
            time.sleep(out_s)
            two.b.join()
            stream.wait_ended(_AFTER_S + 60.0)
            wait_serving(two)
        assert watch.seen == {"0": [("a", worker)]}
        check_finished(two, stream, num_tokens)
        assert attempts(two, [stream]) == [1]
        tally.note("longest gap", stream.longest_gap(), RESUME_S)
        check_nothing_left(two)
