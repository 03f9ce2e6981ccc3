"""Reads models, queues and jobs from Redis for the live feed: one pipeline of three commands, and
five per model. The records of jobs are read once, when their ids first appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

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
from jobs.storage import names
from jobs.storage.connection import AsyncRedis
from jobs.storage.desired_models import read_snapshot
from jobs.storage.store import JobStore
from jobs.storage.totals import Sum

_Status = TypeVar("_Status", WorkerStatus, NodeStatus)
_NUM_LISTED = 100
_MIB = 2**20
_SHOWN_KEY = 6
_FACTS = ("created_at", "caller", "task", "api", "prompt_chars")
_SUMS = (Sum.TIMED_JOBS, Sum.TTFT_S, Sum.PREFILL_S, Sum.DECODE_S)


@dataclass(slots=True)
class _ModelReading:
    """What Redis has of one model."""

    status: WorkerStatus | None
    num_waiting: int
    waiting: list[str]
    sums: dict[Sum, float] = field(default_factory=dict)


class LiveReader:
    """One object per feed: it remembers jobs, and the counters that rates come from."""

    def __init__(self, redis: AsyncRedis, store: JobStore) -> None:
        self._redis = redis
        self._store = store
        self._raw: dict[bytes, bytes] = {}
        self._desired: dict[str, DesiredModel] = {}
        self._node_keys: list[str] = []
        self._facts: dict[str, LiveJob] = {}
        self._owners: dict[str, str] = {}
        self._rates: dict[str, Rates] = {}

    async def read(self) -> LiveState:
        """The state now. Raises ``RedisError`` while Redis cannot be reached."""
        nodes, readings = await self._read_models()
        if nodes is None:  # other models or nodes than the pipeline was made for
            nodes, readings = await self._read_models()
        nodes = nodes or []
        await self._read_facts(readings)
        models: dict[str, LiveModel] = {}
        jobs: dict[str, LiveJob] = {}
        for slug, reading in readings.items():
            rates = self._rates[slug]
            rates.add(reading.status, reading.sums)
            models[slug] = _model(self._desired[slug], reading.status, rates)
            jobs.update(self._jobs(reading, rates))
        queues = {slug: LiveQueue(r.num_waiting, r.waiting) for slug, r in readings.items()}
        owners = dict(self._owners)
        return LiveState(models, queues, jobs, len(nodes), _budget(nodes), owners)

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
        rows = (answers[i : i + 6] for i in range(0, len(answers), 6))
        statuses = [_read(NodeStatus, data) for data in told if data]
        return [one for one in statuses if one], {
            slug: _reading(row) for slug, row in zip(slugs, rows, strict=True)
        }

    def _note_desired(self, raw: dict[bytes, bytes]) -> None:
        self._raw = raw
        self._desired = read_snapshot(raw).desired_models
        self._rates = {slug: self._rates.get(slug) or Rates() for slug in self._desired}

    def _ask(self, pipe: Any, slug: str) -> None:
        pipe.get(names.status_key(slug))
        for name in (names.generation_queue(slug), names.control_queue(slug)):
            key = self._store.queue(name).key
            pipe.llen(key)
            pipe.lrange(key, 0, _NUM_LISTED - 1)
        model_id = self._desired[slug].model_id
        pipe.hmget(names.TOTALS, [f"{name.value} {model_id}" for name in _SUMS])

    async def _read_facts(self, readings: dict[str, _ModelReading]) -> None:
        """Read the records of new jobs, and forget those of jobs that are gone."""
        slug_of = {job_id: slug for slug, r in readings.items() for job_id in _ids(r)}
        self._facts = {i: facts for i, facts in self._facts.items() if i in slug_of}
        self._owners = {i: owner for i, owner in self._owners.items() if i in slug_of}
        new = [job_id for job_id in slug_of if job_id not in self._facts]
        if not new:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in new:
                pipe.hmget(names.job_key(job_id), _FACTS)
            answers = await pipe.execute(raise_on_error=False)
        for job_id, values in zip(new, answers, strict=True):
            self._facts[job_id] = _job(job_id, slug_of[job_id], values)
            if isinstance(values, list):  # else it is gone or unreadable, and nobody's
                self._owners[job_id] = (values[1] or b"").decode(errors="replace")

    def _jobs(self, reading: _ModelReading, rates: Rates) -> Iterator[tuple[str, LiveJob]]:
        for job_id in reading.waiting:
            yield job_id, self._facts[job_id]
        for running in reading.status.jobs if reading.status else ():
            facts = self._facts[running.job_id]
            yield running.job_id, _running(facts, running, rates.of_job(running.job_id))


def _ids(reading: _ModelReading) -> Iterator[str]:
    yield from reading.waiting
    yield from (job.job_id for job in (reading.status.jobs if reading.status else ()))


def _reading(row: list[Any]) -> _ModelReading:
    status, num_generations, generations, num_others, others, sums = row
    return _ModelReading(
        status=_read(WorkerStatus, status) if status else None,
        num_waiting=num_generations + num_others,
        waiting=[i.decode(errors="replace") for i in [*generations, *others][:_NUM_LISTED]],
        sums={name: _number(value) for name, value in zip(_SUMS, sums, strict=True)},
    )


def _read(kind: type[_Status], data: bytes) -> _Status | None:
    try:
        return decode_record(kind, data)
    except ContractError:
        return None  # of another version; a model is shown as starting


def _budget(nodes: list[NodeStatus]) -> int | None:
    known = [node.budget_bytes for node in nodes]
    return sum(found for found in known if found) if known and None not in known else None


def _number(value: bytes | None) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0


def _model(desired: DesiredModel, status: WorkerStatus | None, rates: Rates) -> LiveModel:
    load = desired.load
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


def _job(job_id: str, slug: str, values: Any) -> LiveJob:
    """The facts of a job's record; of one that is gone or unreadable, only what is known."""
    if not isinstance(values, list):
        return LiveJob(job_id, slug)
    created_at, caller, task, api, prompt_chars = values
    return LiveJob(
        id=job_id,
        model=slug,
        task=(task or b"").decode(errors="replace").removeprefix("mgs."),
        api=(api or b"").decode(errors="replace"),
        created_at=_number(created_at),
        key=(caller or b"").decode(errors="replace")[:_SHOWN_KEY],
        prompt_chars=int(_number(prompt_chars)),
    )


def _running(facts: LiveJob, running: RunningJob, rate: float) -> LiveJob:
    return msgspec.structs.replace(
        facts,
        phase=running.phase,
        prompt_tokens=running.prompt_tokens,
        prefilled=running.prefilled_tokens,
        generated=running.generated_tokens,
        rate=rate,
        attempt=running.attempt,
    )
