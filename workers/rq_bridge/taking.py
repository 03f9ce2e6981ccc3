"""Takes jobs from the queue of one consumer, in the order of their class."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rq import Queue

from jobs.contract.records import JobClass
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts, take_scripts
from jobs.storage.store import TAKE_FENCE_TTL_S

_MAX_NAMED = 512  # ids of held jobs sent with a take; generations are limited by slots


@dataclass(frozen=True, slots=True)
class Use:
    """What callers have used since the last take, by field of ``names.fair_key``, in tokens divided
    by weight; and how many sequences of each run now."""

    tokens: dict[str, float]
    running: dict[str, int]


@dataclass(frozen=True, slots=True)
class Order:
    """How jobs of a class are chosen, see ``TAKE``. ``use()`` is read once per take."""

    job_class: JobClass
    aging_s: float = 10.0
    is_fair: bool = True
    use: Callable[[], Use] = lambda: Use({}, {})


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
        self._find_taken = redis.register_script(claim_scripts.FIND_TAKEN)

    def take(self, held: Iterable[str]) -> str | None:
        """Take and claim the next job, none of those in ``held``. ``None`` if there is none, ""
        if those who have jobs there run as many as they may."""
        self._num_takes += 1
        order = self._order
        use = order.use() if order else Use({}, {})
        meant, named = self._meant, list(itertools.islice(held, _MAX_NAMED))
        args: list[str | int | float] = [
            self._worker,
            self._owner,
            names.job_key(""),
            int(self._is_only_meant()),
            self._num_takes,
            order.job_class if order else "",
            order.aging_s if order else 0,
            int(order is not None and order.is_fair),
            len(meant),
            *meant,
            len(named),
            *named,
            len(use.tokens),
            *_flat(use.tokens),
            len(use.running),
            *_flat(use.running),
        ]
        found = self._take(keys=self._keys, args=args)
        return None if found is None else found.decode(errors="replace")

    def find_taken(self) -> set[str]:
        """Ids of all jobs that the consumer has claimed. Redis then refuses earlier takes that are
        still under way."""
        keys = [self._claims_key, names.take_key(self._worker)]
        found = self._find_taken(keys=keys, args=[self._num_takes + 1, TAKE_FENCE_TTL_S])
        members = map(names.parse_claim, found)
        return {member[1] for member in members if member and member[0] == self._worker}


def _flat(fields: Mapping[str, float]) -> list[str | float]:
    return [part for item in fields.items() for part in item]
