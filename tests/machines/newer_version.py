"""A newer version shares the Redis: what it writes is neither lost nor the end of anything."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from jobs.storage import names
from tests.faults.registry import Tally
from tests.helpers.waiting import wait_until
from tests.machines.cluster import Cluster, cluster
from tests.machines.evidence import (
    WorkerWatch,
    check_finished,
    check_nothing_left,
    learn_reference,
    wait_serving,
)

_STEP_S = 0.02
_NUM_TOKENS = 800
_FOREIGN, _SHARED = "7", "8"
_TICKS_S = 5.0  # some rounds of each supervisor
_VIEWS = ("/management/processes", "/v1/models", "/health/ready", "/v1/jobs")


def newer_version_is_beside(tally: Tally) -> None:
    """It owns one model, another one is open to all, and each has fields that we do not know."""
    with cluster() as two, _NewerNode(two) as newer:
        two.start()
        learn_reference(two)
        worker = two.load_on(two.a)
        wait_until(lambda: two.driver.status(_SHARED), "the model with unknown fields loads", 40.0)
        wait_serving(two, _SHARED)
        with WorkerWatch(two) as watch:
            stream = two.b.client.stream(_NUM_TOKENS)
            stream.wait_running()
            _check_views(two)
            two.b.client.load("fake", "1")
            two.b.client.unload("1")
            with _unreadable_desired(two, "0"):
                time.sleep(_TICKS_S)
                assert not stream.ended_at, stream.error
                assert two.a.worker() == worker
            _check_views(two)
            stream.wait_ended(60.0)
        assert watch.seen["0"] == [("a", worker)]
        assert _FOREIGN not in watch.seen
        check_finished(two, stream, _NUM_TOKENS)
        assert _raw_desired(two, _FOREIGN) == newer.foreign
        found = json.loads(_raw_desired(two, _SHARED))
        assert found.pop("was_ready") is True
        assert found == json.loads(newer.shared)
        two.b.client.unload(_SHARED)
        two.a.client.unload()
        check_nothing_left(two)
        tally.count("versions beside each other")


class _NewerNode(threading.Thread):
    """Says each second what a supervisor of a later version would."""

    def __init__(self, two: Cluster) -> None:
        super().__init__(name="newer-node", daemon=True)
        self.foreign = _desired(_FOREIGN)
        self.shared = _desired(_SHARED)
        self._redis = two.driver.redis
        self._is_over = threading.Event()

    def __enter__(self) -> _NewerNode:
        self._heartbeat()
        for slug, data in ((_FOREIGN, self.foreign), (_SHARED, self.shared)):
            self._redis.hset(names.DESIRED_MODELS, slug, data)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(1.0):
            self._heartbeat()

    def _heartbeat(self) -> None:
        status = {
            "model_id": _FOREIGN,
            "state": "warming-up",
            "pid": "many",
            "node": "newer",
            "seats": [{"seat": 0}],
        }
        node = {"uid": "newer", "node": "newer", "version": 9, "memory_bytes": {"gpu": 1}}
        self._redis.set(names.owner_key(_FOREIGN), "newer|1", ex=10)
        self._redis.set(names.status_key(_FOREIGN), json.dumps(status), ex=5)
        self._redis.set(names.node_key("newer"), json.dumps(node), ex=5)
        self._redis.zadd(names.NODE_INDEX, {"newer": time.time()})


def _desired(model_id: str) -> bytes:
    desired = {
        "model_id": model_id,
        "uid": f"uid-{model_id}",
        "load": {"model_name": "fake", "backend": "fake", "draft": {"model_name": "other"}},
        "load_job": f"load-{model_id:0>32}",
        "created_at": time.time(),
        "placement": {"replicas": 2, "on": ["memory=64"]},
    }
    return json.dumps(desired).encode()


def _raw_desired(two: Cluster, slug: str) -> bytes:
    return bytes(two.driver.redis.hget(names.DESIRED_MODELS, slug))


class _unreadable_desired:  # noqa: N801 - used as a block
    """For the block, the entry of a model that runs is one of a version to come."""

    def __init__(self, two: Cluster, slug: str) -> None:
        self._two = two
        self._slug = slug

    def __enter__(self) -> None:
        self._kept = _raw_desired(self._two, self._slug)
        changed: dict[str, Any] = {**json.loads(self._kept), "load": ["a", "b"]}
        self._two.driver.redis.hset(names.DESIRED_MODELS, self._slug, json.dumps(changed))
        self._two.driver.desired_models.notify()

    def __exit__(self, *_: object) -> None:
        self._two.driver.redis.hset(names.DESIRED_MODELS, self._slug, self._kept)
        self._two.driver.desired_models.notify()


def _check_views(two: Cluster) -> None:
    """Every view answers, and shows what can be shown."""
    for machine in two.machines:
        for path in _VIEWS:
            status, answer = machine.client.ask("GET", path)
            assert status in ((200, 503) if path == "/health/ready" else (200,)), (path, answer)
        _, answer = machine.client.ask("GET", "/management/processes")
        shown = {entry["model_id"]: entry for entry in answer["processes"]}
        assert shown["0"]["state"] == "ready", shown
        assert shown[_SHARED]["state"] == "ready", shown
