"""Reads models, queues and jobs from Redis for the live feed: one pipeline of three commands, and
nine per model, and one more of the order of the jobs while any wait. The records of jobs are read
once, when their ids first appear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from api.live.jobs import LiveJobs, listed, number
from api.live.rates import Rates
from api.live.schema import LiveJob, LiveModel, LiveQueue, LiveState
from jobs.contract.errors import ContractError
from jobs.contract.records import (
    DesiredModel,
    NodeStatus,
    RunningJob,
    WorkerStatus,
    decode_record,
)
from jobs.scheduling.holds import CLASSES
from jobs.storage import names
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import read_snapshot
from jobs.storage.store import JobStore
from jobs.storage.totals import Sum

_Status = TypeVar("_Status", WorkerStatus, NodeStatus)
_NUM_LISTED = 100
_MIB = 2**20
_SUMS = (Sum.TIMED_JOBS, Sum.TTFT_S, Sum.PREFILL_S, Sum.DECODE_S)


@dataclass(frozen=True, slots=True)
class _Queue:
    """Number of waiting jobs, and the ids of the first of them as they came."""

    name: str
    num_waiting: int
    ids: list[str]


@dataclass(frozen=True, slots=True)
class _ModelReading:
    """What Redis has of one model. ``held``: the classes on hold or drained, and which it is."""

    status: WorkerStatus | None
    generations: _Queue
    batch: _Queue
    others: _Queue
    held: dict[str, str]
    sums: dict[Sum, float]

    @property
    def queues(self) -> tuple[_Queue, ...]:
        return self.generations, self.batch, self.others

    @property
    def running(self) -> list[RunningJob]:
        return self.status.jobs if self.status else []


class LiveReader:
    """One object per feed: it remembers jobs, and the counters that rates come from."""

    def __init__(
        self, redis: AsyncRedis, store: JobStore, name_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._redis = redis
        self._store = store
        self._raw: dict[bytes, bytes] = {}
        self._desired: dict[str, DesiredModel] = {}
        self._node_keys: list[str] = []
        self._jobs = LiveJobs(redis, name_of)
        self._rates: dict[str, Rates] = {}

    async def read(self) -> LiveState:
        """The state now. Raises ``RedisError`` while Redis cannot be reached."""
        nodes, readings = await self._read_models()
        if nodes is None:  # other models or nodes than the pipeline was made for
            nodes, readings = await self._read_models()
        nodes = nodes or []
        await self._learn(readings)
        models: dict[str, LiveModel] = {}
        jobs: dict[str, LiveJob] = {}
        for slug, reading in readings.items():
            rates = self._rates[slug]
            rates.add(reading.status, reading.sums)
            models[slug] = _model(self._desired[slug], reading, rates)
            for queue in reading.queues:
                jobs |= {job_id: self._jobs.waiting(job_id) for job_id in queue.ids}
            for one in reading.running:
                jobs[one.job_id] = self._jobs.running(one, rates.of_job(one.job_id))
        return LiveState(
            models=models,
            queues={slug: self._queue(r.generations, r.others) for slug, r in readings.items()},
            batch_queues={slug: self._queue(r.batch) for slug, r in readings.items()},
            jobs=jobs,
            supervisors=len(nodes),
            budget_bytes=_budget(nodes),
            owners=dict(self._jobs.owners),
        )

    async def _learn(self, readings: Mapping[str, _ModelReading]) -> None:
        slug_of: dict[str, str] = {}
        queue_of: dict[str, str] = {}
        for slug, reading in readings.items():
            slug_of |= {one.job_id: slug for one in reading.running}
            for queue in reading.queues:
                slug_of |= dict.fromkeys(queue.ids, slug)
                queue_of |= dict.fromkeys(queue.ids, queue.name)
        await self._jobs.learn(slug_of, queue_of)

    def _queue(self, *queues: _Queue) -> LiveQueue:
        order = [job_id for queue in queues for job_id in self._jobs.in_order(queue.ids)]
        return LiveQueue(sum(queue.num_waiting for queue in queues), order[:_NUM_LISTED])

    async def _read_models(self) -> tuple[list[NodeStatus] | None, dict[str, _ModelReading]]:
        slugs = list(self._desired)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(names.DESIRED_MODELS)
            pipe.zrange(names.NODE_INDEX, 0, -1)
            pipe.mget([*self._node_keys, names.node_key("")])
            for slug in slugs:
                self._ask(pipe, slug)
            raw, nodes, told, *answers = await pipe.execute()
        node_keys = [names.node_key(uid.decode(errors="replace")) for uid in nodes]
        is_current = raw == self._raw and node_keys == self._node_keys
        self._node_keys = node_keys
        if raw != self._raw:
            self._note_desired(raw)
        if not is_current:
            return None, {}
        rows = (answers[i : i + 9] for i in range(0, len(answers), 9))
        statuses = [_read(NodeStatus, data) for data in told if data]
        return [one for one in statuses if one], {
            slug: _reading(slug, row) for slug, row in zip(slugs, rows, strict=True)
        }

    def _note_desired(self, raw: dict[bytes, bytes]) -> None:
        self._raw = raw
        self._desired = read_snapshot(raw).desired_models
        self._rates = {slug: self._rates.get(slug) or Rates() for slug in self._desired}

    def _ask(self, pipe: Any, slug: str) -> None:
        pipe.get(names.status_key(slug))
        for name in _queues(slug):
            key = self._store.queue(name).key
            pipe.llen(key)
            pipe.lrange(key, 0, _NUM_LISTED - 1)
        model_id = self._desired[slug].model_id
        pipe.hmget(names.TOTALS, [f"{name.value} {model_id}" for name in _SUMS])
        pipe.hmget(names.hold_key(slug), CLASSES)


def _queues(slug: str) -> tuple[str, str, str]:
    return names.generation_queue(slug), names.batch_queue(slug), names.control_queue(slug)


def _reading(slug: str, row: list[Any]) -> _ModelReading:
    status, *lists, sums, held = row
    parts = zip(_queues(slug), lists[::2], lists[1::2], strict=True)
    generations, batch, others = (_Queue(name, num, listed(ids)) for name, num, ids in parts)
    states = zip(CLASSES, held, strict=True)
    return _ModelReading(
        status=_read(WorkerStatus, status) if status else None,
        generations=generations,
        batch=batch,
        others=others,
        held={name: state.decode(errors="replace") for name, state in states if state},
        sums={name: number(value) for name, value in zip(_SUMS, sums, strict=True)},
    )


def _read(kind: type[_Status], data: bytes) -> _Status | None:
    try:
        return decode_record(kind, data)
    except ContractError:
        return None  # of another version; a model is shown as starting


def _budget(nodes: list[NodeStatus]) -> int | None:
    known = [node.budget_bytes for node in nodes]
    return sum(found for found in known if found) if known and None not in known else None


def _model(desired: DesiredModel, reading: _ModelReading, rates: Rates) -> LiveModel:
    load, status = desired.load, reading.status
    shown = LiveModel(
        id=desired.model_id,
        name=load.model_name,
        backend=load.backend,
        state="parked" if desired.is_parked else "starting",
        created_at=desired.created_at,
        context_length=load.context_length or 0,
        is_parked=desired.is_parked,
        pinned=desired.pinned,
        ttl_s=desired.ttl_s,
        ttft_ms=rates.ttft_ms,
        service_s=rates.service_s,
        held=reading.held,
    )
    return shown if status is None else _with_worker(shown, status, rates)


def _with_worker(model: LiveModel, status: WorkerStatus, rates: Rates) -> LiveModel:
    return msgspec.structs.replace(
        model,
        state=status.state.value,
        fraction=status.load_fraction,
        node=status.node,
        memory_bytes=round(status.memory_bytes / _MIB) * _MIB,
        reserved_bytes=status.reserved_bytes,
        prompt_cache_bytes=round(status.prompt_cache_bytes / _MIB) * _MIB,
        context_length=status.context_length or model.context_length,
        slots=status.slots,
        running=status.running,
        sequences=status.sequences,
        cpu_percent=round(status.cpu_percent),
        architecture=status.architecture,
        quantization=status.quantization,
        num_parameters=status.num_parameters,
        started_at=status.started_at,
        error=status.error,
        prefill_rate=rates.prefill,
        decode_rate=rates.decode,
        cached_share=rates.cached_share,
    )
