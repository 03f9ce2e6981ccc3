"""What the live feed knows of jobs: their records, read once, and their order in the queues."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from api.live.schema import LiveJob
from jobs.contract.records import RunningJob
from jobs.storage import names
from jobs.storage.connection import AsyncRedis

_SHOWN_KEY = 6
_FACTS = (
    "created_at", "caller", "task", "api", "prompt_chars", "job_class", "priority", "batch",
    "yields",
)  # fmt: skip


class LiveJobs:
    """The jobs that wait or run. ``name_of(caller)``: the name of a key, "" if it is not known."""

    def __init__(self, redis: AsyncRedis, name_of: Callable[[str], str]) -> None:
        self._redis = redis
        self._name_of = name_of
        self._facts: dict[str, LiveJob] = {}
        self._scores: dict[str, float | None] = {}
        self.owners: dict[str, str] = {}

    async def learn(self, slug_of: Mapping[str, str], queue_of: Mapping[str, str]) -> None:
        """Read what is not known of the jobs in ``slug_of``, and forget all others.

        ``queue_of``: the queue of those that wait. A job whose place changed by other means than
        waiting, for instance its priority, is read again.
        """
        waiting = [one for one in self._scores if one in queue_of]
        self._facts = {i: facts for i, facts in self._facts.items() if i in slug_of}
        returned = [i for i in queue_of if i in self._facts and i not in self._scores]
        self.owners = {i: owner for i, owner in self.owners.items() if i in slug_of}
        await self._read({i: slug for i, slug in slug_of.items() if i not in self._facts})
        scores = await self._read_scores(queue_of)
        moved = [one for one in waiting if scores.get(one) != self._scores[one]]
        self._scores = {one: scores.get(one) for one in queue_of}
        await self._read({one: slug_of[one] for one in [*moved, *returned]})

    async def _read(self, slug_of: Mapping[str, str]) -> None:
        if not slug_of:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in slug_of:
                pipe.hmget(names.job_key(job_id), _FACTS)
            answers = await pipe.execute(raise_on_error=False)
        for (job_id, slug), values in zip(slug_of.items(), answers, strict=True):
            self._facts[job_id] = self._job(job_id, slug, values)
            if isinstance(values, list):  # else it is gone or unreadable, and nobody's
                self.owners[job_id] = _text(values[1])

    async def _read_scores(self, queue_of: Mapping[str, str]) -> dict[str, float]:
        """The hints of jobs on queues in which more than one waits: who is taken first."""
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for job_id, queue in queue_of.items():
            groups[queue, self.owners.get(job_id, "")].append(job_id)
        if not groups:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for (queue, caller), ids in groups.items():
                pipe.zmscore(names.hint_key(queue, caller), ids)
            answers = await pipe.execute(raise_on_error=False)
        return {
            job_id: score
            for ids, scores in zip(groups.values(), answers, strict=True)
            if isinstance(scores, list)
            for job_id, score in zip(ids, scores, strict=True)
            if score is not None
        }

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """As they will be taken, as far as one can know: those without a hint were put back."""
        scores = {one: self._scores.get(one) for one in ids}
        return sorted(ids, key=lambda one: -math.inf if (s := scores[one]) is None else s)

    def waiting(self, job_id: str) -> LiveJob:
        return self._facts[job_id]

    def running(self, running: RunningJob, rate: float) -> LiveJob:
        return msgspec.structs.replace(
            self._facts[running.job_id],
            phase=running.phase,
            prompt_tokens=running.prompt_tokens,
            prefilled=running.prefilled_tokens,
            generated=running.generated_tokens,
            rate=rate,
            attempt=running.attempt,
        )

    def _job(self, job_id: str, slug: str, values: Any) -> LiveJob:
        """The facts of a job's record; of one that is gone or unreadable, only what is known."""
        if not isinstance(values, list):
            return LiveJob(job_id, slug)
        created_at, caller, task, api, prompt_chars, job_class, priority, batch, yields = values
        owner = _text(caller)
        return LiveJob(
            id=job_id,
            model=slug,
            task=_text(task).removeprefix("mgs."),
            api=_text(api),
            created_at=number(created_at),
            key=self._name_of(owner) or owner[:_SHOWN_KEY],
            prompt_chars=int(number(prompt_chars)),
            job_class=_text(job_class) or "interactive",
            priority=int(number(priority)),
            batch=_text(batch),
            yields=int(number(yields)),
        )


def listed(*lists: Collection[bytes]) -> list[str]:
    """Ids as text."""
    return [_text(one) for ids in lists for one in ids]


def number(value: bytes | None) -> float:
    """A field's number, 0 if it is none."""
    try:
        found = float(value or 0)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
