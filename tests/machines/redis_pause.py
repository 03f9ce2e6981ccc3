"""Redis stops for longer than an owner's time: nobody's model moves while its worker lives."""

from __future__ import annotations

import time

from tests.faults.registry import Tally
from tests.machines.cluster import cluster
from tests.machines.evidence import (
    RESUME_S,
    WorkerWatch,
    attempts,
    check_finished,
    check_nothing_left,
    learn_reference,
    owner,
)

_STEP_S = 0.02
_AFTER_S = 15.0  # as long as an owner's time and more: a late theft would show


def pause_of_redis(tally: Tally, pause_s: float, *, is_other_busy: bool) -> None:
    """A model with streams on A, and another one on B if that is to be busy."""
    num_tokens = int((pause_s + _AFTER_S) / _STEP_S)
    with cluster() as two:
        two.start()
        learn_reference(two)
        workers = {"0": ("a", two.load_on(two.a))}
        if is_other_busy:
            workers["1"] = ("b", two.load_on(two.b, model_id="1"))
        streams = [m.client.stream(num_tokens, id_) for id_ in workers for m in two.machines]
        for stream in streams:
            stream.wait_running()
        owners = {model_id: owner(two, model_id) for model_id in workers}
        with WorkerWatch(two) as watch:
            two.redis.stop()
            time.sleep(pause_s)
            two.redis.go_on()
            back_at = time.monotonic()
            for stream in streams:
                stream.wait_ended(pause_s + _AFTER_S + 60.0)
        assert watch.seen == {model_id: [worker] for model_id, worker in workers.items()}
        assert {model_id: owner(two, model_id) for model_id in workers} == owners
        for stream in streams:
            check_finished(two, stream, num_tokens)
        assert attempts(two, streams) == [1] * len(streams)
        check_nothing_left(two)
        waited = max(stream.silence_after(back_at) for stream in streams)
        tally.note("until the streams go on", waited, RESUME_S)
