"""An API dies without a word: its jobs end once, on whichever machine they run."""

from __future__ import annotations

import signal
import time

from jobs.contract.events import EventKind
from tests.faults.registry import Tally
from tests.helpers.driver import assert_whole
from tests.helpers.waiting import wait_until
from tests.machines.client import Stream
from tests.machines.cluster import Cluster, cluster
from tests.machines.evidence import (
    check_finished,
    check_nothing_left,
    learn_reference,
)

_STEP_S = 0.02
_ORPHAN_S = 5.0
_NUM_EACH = 10  # two more than run at once: some wait
_NUM_TOKENS = 1000


def api_dies(tally: Tally, *, is_machine_lost: bool = False) -> None:
    """A's API, with jobs on A's worker and on B's; or all of A, with jobs on B's worker."""
    with cluster(MGS_ORPHAN_S=str(_ORPHAN_S)) as two:
        two.start()
        learn_reference(two)
        models = ["1"] if is_machine_lost else ["0", "1"]
        for machine, model_id in ((two.a, "0"), (two.b, "1")):
            if model_id in models:
                two.load_on(machine, model_id=model_id)
        kept = [two.b.client.stream(_NUM_TOKENS, model_id) for model_id in models]
        for stream in kept:
            stream.wait_running()
        orphans = [
            two.a.client.stream(5000, model_id) for model_id in models for _ in range(_NUM_EACH)
        ]
        wait_until(lambda: _num_running(orphans) >= 7 * len(models), "the slots are full", 30.0)
        wait_until(lambda: _num_known(two) >= len(orphans) + len(kept), "the others wait", 30.0)
        dead_at = time.monotonic()
        if is_machine_lost:
            two.a.kill()
        else:
            assert two.a.api is not None
            two.a.api.signal(signal.SIGKILL)
        job_ids = _job_ids(two) - {stream.job_id for stream in kept}
        assert len(job_ids) == len(orphans)
        for job_id in job_ids:
            two.driver.wait_ended(job_id, 60.0)
        tally.note(
            "until all are ended, beyond MGS_ORPHAN_S", time.monotonic() - dead_at - _ORPHAN_S, 10.0
        )
        for job_id in job_ids:
            events = two.driver.events(job_id)
            assert_whole(events)
            assert events[-1].kind is EventKind.CANCELLED, events[-1]
        for stream in kept:
            stream.wait_ended(120.0)
            check_finished(two, stream, _NUM_TOKENS)
        check_nothing_left(two)


def _num_running(streams: list[Stream]) -> int:
    return sum(bool(stream.pieces) for stream in streams)


def _num_known(two: Cluster) -> int:
    return len(_job_ids(two))


def _job_ids(two: Cluster) -> set[str]:
    """Generations that have not ended."""
    records, _ = two.driver.store.page(None, 1000, lambda record: not record.status.is_terminal)
    return {record.job_id for record in records if record.job_id.startswith("cmpl")}
