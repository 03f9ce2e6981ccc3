"""Parks models, and reads what waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from jobs.contract.records import DesiredModel, change_record, decode_record
from jobs.storage import names
from jobs.storage.fence import checked
from jobs.storage.lua import parking_scripts
from jobs.storage.store import TAKE_FENCE_TTL_S, JobStore

_NUM_CONTROL = 8


@dataclass(frozen=True, slots=True)
class Demand:
    """The jobs of one model, by class. ``oldest_at``: creation of the oldest waiting interactive
    one, ``batch_oldest_at`` of the oldest of the class batch, in epoch seconds.

    Jobs of a class that is held wait for its release and not for the model: of them only
    ``has_frozen`` tells.
    """

    num_held: int = 0
    oldest_at: float | None = None
    num_batch_held: int = 0
    batch_oldest_at: float | None = None
    has_frozen: bool = False


class Parking:
    """The steps of a supervisor that ends and starts the processes of desired models."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._redis = store.redis
        self._park = self._redis.register_script(parking_scripts.PARK)

    def park(
        self,
        slug: str,
        uid: str,
        workers: Iterable[str],
        owner: str,
        *,
        with_waiting_jobs: bool = False,
    ) -> DesiredModel | None:
        """Park the model with that uid, so that ``workers`` can be stopped without harm.

        ``None`` if it was not parked: a job of it is taken, or waits (unless
        ``with_waiting_jobs``), or the model has changed. Raises ``OwnershipLostError`` unless
        ``owner`` owns the model.
        """
        raw = self._redis.hget(names.DESIRED_MODELS, slug)
        if not raw or decode_record(DesiredModel, raw).uid != uid:
            return None
        parked = change_record(raw, is_parked=True)
        queues = [self._store.queue(name) for name in names.queues_of(slug)]
        keys = [names.DESIRED_MODELS, names.owner_key(slug), names.claims_key(slug)]
        keys += [queue.key for queue in queues]
        keys += [queue.intermediate_queue_key for queue in queues]
        keys += map(names.take_key, workers)
        args = [slug, raw, parked, owner, int(with_waiting_jobs), TAKE_FENCE_TTL_S, len(queues)]
        is_parked = checked(self._park(keys=keys, args=[*args, names.job_key("")]))
        return decode_record(DesiredModel, parked) if is_parked else None

    def demand(self, slugs: Sequence[str]) -> dict[str, Demand]:
        """The taken and waiting jobs of the models, by slug."""
        with self._redis.pipeline(transaction=False) as pipe:
            for slug in slugs:
                pipe.smembers(names.claims_key(slug))
                pipe.hmget(names.hold_key(slug), "interactive", "batch")
                for name, num in _heads(slug):
                    pipe.lrange(self._store.queue(name).key, 0, num - 1)
            found = [_or_none(answer) for answer in pipe.execute(raise_on_error=False)]
        size = len(found) // max(1, len(slugs))
        rows = {slug: _Row(*found[i * size : (i + 1) * size]) for i, slug in enumerate(slugs)}
        jobs = self._read({job_id for row in rows.values() for job_id in row.ids})
        return {slug: row.demand(jobs) for slug, row in rows.items()}

    def _read(self, job_ids: Collection[bytes]) -> dict[bytes, _Job]:
        """By id. What is no job waits too, to be set aside by a worker: it is as old as can be."""
        if not job_ids:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                key = names.job_key(job_id.decode(errors="replace"))
                pipe.hmget(key, "created_at", "job_class")
            found = [_or_none(answer) for answer in pipe.execute(raise_on_error=False)]
        return {key: _job(answer) for key, answer in zip(job_ids, found, strict=True)}


def _heads(slug: str) -> list[tuple[str, int]]:
    """The queues of a model, and how many of their jobs are looked at: in the control queue the
    inputs of a batch stand among others.
    """
    return [
        (names.control_queue(slug), _NUM_CONTROL),
        (names.generation_queue(slug), 1),
        (names.batch_queue(slug), 1),
    ]


@dataclass(frozen=True, slots=True)
class _Job:
    created_at: float
    is_batch: bool


class _Row:
    """What Redis has of one model: claims, classes on hold, first ids of its queues."""

    def __init__(self, claims: Any, holds: Any, control: Any, generations: Any, lines: Any) -> None:
        parsed = [(one, names.parse_claim(one)) for one in claims or ()]
        self._num_malformed = sum(1 for _, claim in parsed if claim is None)
        self._claimed = [claim[1].encode() for _, claim in parsed if claim is not None]
        is_held, is_batch_held = [value == b"hold" for value in holds or (None, None)]
        open_lists = [control, () if is_held else generations, () if is_batch_held else lines]
        self._waiting = [job_id for ids in open_lists for job_id in ids or ()]
        self._batch = set() if is_batch_held else set(lines or ())
        self._has_frozen = bool((is_held and generations) or (is_batch_held and lines))

    @property
    def ids(self) -> list[bytes]:
        return [*self._claimed, *self._waiting]

    def demand(self, jobs: Mapping[bytes, _Job]) -> Demand:
        """A malformed claim counts: only recovery removes it."""
        held = Counter(jobs[job_id].is_batch for job_id in self._claimed)
        since: dict[bool, list[float]] = {False: [], True: []}
        for job_id in self._waiting:
            job = jobs[job_id]
            since[job.is_batch or job_id in self._batch].append(job.created_at)
        return Demand(
            num_held=held[False] + self._num_malformed,
            oldest_at=min(since[False], default=None),
            num_batch_held=held[True],
            batch_oldest_at=min(since[True], default=None),
            has_frozen=self._has_frozen,
        )


def _job(answer: Any) -> _Job:
    created_at, job_class = answer or (None, None)
    return _Job(_seconds(created_at), job_class == b"batch")


def _or_none(answer: object) -> Any:
    """A reply of a pipeline; ``None`` for a key of another type."""
    if isinstance(answer, Exception):
        if not isinstance(answer, ResponseError):
            raise answer
        return None
    return answer


def _seconds(value: bytes | None) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0
