"""Takes jobs from the queue of one consumer, in the order of their class."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rq import Queue
from rq.job import Job

from jobs.contract.records import JobClass
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts, take_scripts
from jobs.storage.store import TAKE_FENCE_TTL_S
from workers.scheduling.fair_use import Use, UseOfTakes

_MAX_NAMED = 512  # ids of held jobs sent with a take; generations are limited by slots
_NONE = Use()


@dataclass(frozen=True, slots=True)
class Order:
    """How jobs of a class are chosen, see ``TAKE``. ``use``: what callers use of the model."""

    job_class: JobClass
    aging_s: float = 10.0
    is_fair: bool = True
    use: UseOfTakes | None = None


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Whether a job is on its queue again. ``cancel_reason``: of a cancel that prevented it."""

    is_returned: bool
    cancel_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that was taken. ``fields``: those of RQ's job, empty if it cannot be read. ``is_last``:
    none is left on the queue."""

    job_id: str
    fields: dict[bytes, bytes]
    is_last: bool


class Taker:
    """The takes of one consumer.

    Nothing is taken while another supervisor than ``owner`` owns the model. Without an ``order``
    jobs are taken as they lie on the queue, and of the loads and unloads only those with ids in
    ``meant``; while ``is_only_meant()``, nothing else is.
    """

    def __init__(
        self,
        redis: SyncRedis,
        queue: Queue,
        worker: str,
        owner: str,
        order: Order | None = None,
        meant: Sequence[str] = (),
        is_only_meant: Callable[[], bool] = lambda: False,
    ) -> None:
        slug = names.slug_of_worker(worker)
        self._redis = redis
        self._queue = queue
        self._worker = worker
        self._owner = owner
        self._order = order
        self._meant = list(meant)
        self._is_only_meant = is_only_meant
        self._num_takes = 0
        self._claims_key = names.claims_key(slug)
        self._keys = [
            queue.key,
            queue.intermediate_queue_key,
            self._claims_key,
            names.owner_key(slug),
            names.take_key(worker),
            names.hold_key(slug),
            names.hints_key(queue.name),
            names.fair_key(slug),
        ]
        self._take = redis.register_script(take_scripts.TAKE)
        self._yield = redis.register_script(claim_scripts.YIELD)
        self._find_taken = redis.register_script(claim_scripts.FIND_TAKEN)

    def take(self, held: Iterable[str]) -> Taken | Literal[False] | None:
        """Take and claim the next job, none of those in ``held``. ``None`` if there is none,
        ``False`` if those who have jobs there run as many as they may."""
        self._num_takes += 1
        order = self._order
        use = order.use.begin_take() if order and order.use else _NONE
        found = _read(self._take(keys=self._keys, args=self._args(held, use)))
        if not found:
            self.end_take()
        return found

    def end_take(self) -> None:
        """Note that no job is on its way from the queue to its start."""
        if self._order and self._order.use:
            self._order.use.end_take()

    def _args(self, held: Iterable[str], use: Use) -> list[str | int | float]:
        order, meant = self._order, self._meant
        named = list(itertools.islice(held, _MAX_NAMED))
        return [
            self._worker,
            self._owner,
            names.job_key(""),
            int(self._is_only_meant()),
            self._num_takes,
            order.job_class if order else "",
            order.aging_s if order else 0,
            int(order is not None and order.is_fair),
            use.num_taking,
            Job.key_for(""),
            len(meant),
            *meant,
            len(named),
            *named,
            len(use.used),
            *_flat(use.used),
            len(use.running),
            *_flat(use.running),
        ]

    def hand_back(self, job_id: str, attempt: int) -> HandedBack:
        """See ``QueueConsumer.hand_back``."""
        keys = [
            names.job_key(job_id),
            self._queue.intermediate_queue_key,
            self._queue.key,
            self._claims_key,
            Job.key_for(job_id),
            names.wake_key(self._queue.name),
        ]
        answer = self._yield(keys=keys, args=[job_id, self._worker, attempt])
        if isinstance(answer, bytes):
            return HandedBack(is_returned=False, cancel_reason=answer.decode(errors="replace"))
        return HandedBack(is_returned=answer == 1)

    def wake(self) -> None:
        """Let the consumer look again."""
        key = names.wake_key(self._queue.name)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(key, b"1")
            pipe.ltrim(key, 0, 0)
            pipe.execute()

    def find_taken(self) -> set[str]:
        """Ids of all jobs that the consumer has claimed. Redis then refuses earlier takes that are
        still under way."""
        keys = [self._claims_key, names.take_key(self._worker)]
        found = self._find_taken(keys=keys, args=[self._num_takes + 1, TAKE_FENCE_TTL_S])
        members = map(names.parse_claim, found)
        return {member[1] for member in members if member and member[0] == self._worker}


def _read(reply: Any) -> Taken | Literal[False] | None:
    """The reply of ``TAKE``."""
    if not reply:
        return None if reply is None else False
    job_id, num_left, flat = reply
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Taken(job_id.decode(errors="replace"), fields, num_left == 0)


def _flat(fields: Mapping[str, float]) -> list[str | float]:
    return [part for item in fields.items() for part in item]
