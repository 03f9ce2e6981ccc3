"""Parks models, and reads what waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from jobs.contract.records import DesiredModel, change_record, decode_record
from jobs.storage import names
from jobs.storage.fence import checked
from jobs.storage.lua import parking_scripts
from jobs.storage.store import TAKE_FENCE_TTL_S, JobStore


@dataclass(frozen=True, slots=True)
class Demand:
    """The jobs of one model. ``oldest_at``: creation of the oldest waiting one, epoch seconds."""

    num_held: int = 0
    oldest_at: float | None = None


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
                pipe.scard(names.claims_key(slug))
                for name in names.queues_of(slug):
                    pipe.lindex(self._store.queue(name).key, 0)
            found = [_or_none(answer) for answer in pipe.execute(raise_on_error=False)]
        heads = [job_id for job_id in found if isinstance(job_id, bytes)]
        created = self._created_at(heads)
        width = len(found) // len(slugs) if slugs else 0
        return {
            slug: _demand_of(found[width * index : width * (index + 1)], created)
            for index, slug in enumerate(slugs)
        }

    def _created_at(self, job_ids: Sequence[bytes]) -> dict[bytes, float]:
        """By job id; 0 for what is no job: it waits too, to be set aside by a worker."""
        if not job_ids:
            return {}
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(names.job_key(job_id.decode(errors="replace")), "created_at")
            found = [_or_none(answer) for answer in pipe.execute(raise_on_error=False)]
        return {key: _seconds(value) for key, value in zip(job_ids, found, strict=True)}


def _demand_of(found: Sequence[bytes | int | None], created: Mapping[bytes, float]) -> Demand:
    """``found``: the number of claims, and the first id on each queue."""
    num_held, *heads = found
    waiting = [created[head] for head in heads if isinstance(head, bytes)]
    return Demand(int(num_held or 0), min(waiting, default=None))


def _or_none(answer: object) -> bytes | int | None:
    """A reply of a pipeline; ``None`` for a key of another type."""
    if isinstance(answer, Exception):
        if not isinstance(answer, ResponseError):
            raise answer
        return None
    return answer if isinstance(answer, bytes | int) else None


def _seconds(value: bytes | int | None) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0
