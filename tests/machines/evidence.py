"""What must hold when a disturbance is over, and the figures that tell how long it was felt."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable

from jobs.storage import names
from tests.helpers.driver import assert_whole, token_ids
from tests.helpers.waiting import wait_until
from tests.machines.client import Stream
from tests.machines.cluster import Cluster

NUM_REFERENCE = 6000
_LOOK_S = 0.05
_reference: list[int] = []


# Within how many seconds each thing has to happen.
RESUME_S = 2.0
"""A stream goes on after the end of a pause."""
TAKEOVER_S = 10.0
"""The jobs of a machine that is gone go on at another."""
NOTICE_S = 6.0
"""Who is cut off has given his connections up."""
HANDOVER_S = 5.0
"""The jobs of a supervisor that ends in good order go on at another."""


class WorkerWatch(threading.Thread):
    """Looks all the time which workers run where."""

    def __init__(self, two: Cluster) -> None:
        super().__init__(name="worker-watch", daemon=True)
        self.seen: dict[str, list[tuple[str, int]]] = {}
        """By model id: machine and process id of each worker that there was, in that order."""
        self.most_at_once: dict[str, int] = {}
        self._two = two
        self._is_over = threading.Event()

    def __enter__(self) -> WorkerWatch:
        self._look()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()
        self._look()

    def run(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        counts: dict[str, int] = {}
        for machine in self._two.machines:
            for pid, model_id in machine.workers().items():
                counts[model_id] = counts.get(model_id, 0) + 1
                seen = self.seen.setdefault(model_id, [])
                if (machine.name, pid) not in seen:
                    seen.append((machine.name, pid))
        for model_id, count in counts.items():
            self.most_at_once[model_id] = max(self.most_at_once.get(model_id, 0), count)


def owner(two: Cluster, model_id: str = "0") -> bytes | None:
    """Who owns a model, as Redis says."""
    found: bytes | None = two.driver.redis.get(names.owner_key(names.slug_of(model_id)))
    return found


def check_finished(two: Cluster, stream: Stream, num_tokens: int) -> None:
    """The stream has all its tokens, each once, and so has the job's log, with one end."""
    assert stream.error is None, f"{stream.job_id}: {stream.error}"
    assert stream.finish_reason == "length", stream.job_id
    check_log(two, stream.job_id, num_tokens)
    text = "".join(event.text for event in two.driver.events(stream.job_id))
    assert stream.text == text, f"{stream.job_id}: the client has read another text"


def check_log(two: Cluster, job_id: str, num_tokens: int) -> None:
    """The job's log holds so many tokens of the counting text, each event once, and one end."""
    events = two.driver.events(job_id)
    assert_whole(events)
    assert token_ids(events) == reference(two)[:num_tokens], job_id


def reference(two: Cluster) -> list[int]:
    """The tokens that every completion of ours has, from a run that nothing disturbs."""
    assert len(_reference) == NUM_REFERENCE, "learn_reference first"
    return _reference


def learn_reference(two: Cluster) -> None:
    """Once per run, before anything is disturbed."""
    if _reference:
        return
    client = two.a.client
    client.load("fake", "reference")
    stream = client.stream(NUM_REFERENCE, "reference")
    stream.wait_ended(60)
    client.unload("reference")
    _reference.extend(token_ids(two.driver.events(stream.job_id)))


def attempts(two: Cluster, streams: Iterable[Stream]) -> list[int]:
    """How often each of the jobs was begun."""
    return [two.driver.record(stream.job_id).attempt for stream in streams]


def check_nothing_left(two: Cluster, timeout_s: float = 20.0) -> None:
    """No job without an end, none in a queue, on its way or in anybody's hands."""
    deadline = time.monotonic() + timeout_s
    while left := _left(two):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(_LOOK_S)


def _left(two: Cluster) -> dict[str, list[str]]:
    redis, store = two.driver.redis, two.driver.store
    ids = [job_id.decode() for job_id in redis.zrange(names.JOB_INDEX, 0, -1)]
    found = {
        "no end": [r.job_id for r in store.records(ids) if not r.status.is_terminal],
        "live": [job_id.decode() for job_id in redis.zrange(names.LIVE, 0, -1)],
    }
    for pattern in ("rq:queue:*", "rq:intermediate:*"):
        for key in redis.scan_iter(pattern):
            found[key.decode()] = [str(item) for item in redis.lrange(key, 0, -1)]
    for key in redis.scan_iter("mgs:claim*"):
        found[key.decode()] = [str(item) for item in redis.smembers(key)]
    return {what: items for what, items in found.items() if items}


def wait_serving(two: Cluster, model_id: str = "0") -> None:
    """The model is ready, and both APIs have it answer."""
    two.driver.wait_ready(model_id, timeout_s=40.0)
    body = {"prompt": "x", "max_tokens": 3}
    for machine in two.machines:
        if machine.api is not None and machine.api.is_running:
            ask = functools.partial(machine.client.is_answered, body, model_id)
            wait_until(ask, f"{machine.name} answers a new request", 40.0)
