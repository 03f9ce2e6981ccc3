"""The order of the jobs that wait on a queue, and changes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from jobs.contract.errors import JobConflictError, JobNotFoundError
from jobs.contract.records import JobRecord
from jobs.storage import names
from jobs.storage.lua import order_scripts
from jobs.storage.store import JobStore


class WaitingOrder:
    """Reads and changes the order. Synchronous."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._redis = store.redis
        self._change = store.redis.register_script(order_scripts.CHANGE_PRIORITY)

    def places(self, queue_name: str) -> dict[str, int]:
        """The place of each waiting job, from 1.

        Jobs that were put back are first. The others come by the time since when they wait, which
        priority and deadline move. Between callers ``TAKE`` is also fair, which nobody can foresee.
        """
        waiting, callers = self._read(queue_name)
        scores = self._scores(queue_name, callers)
        hinted = sorted((one for one in waiting if one in scores), key=scores.__getitem__)
        without = [one for one in waiting if one not in scores]
        return {_text(job_id): place for place, job_id in enumerate(without + hinted, start=1)}

    def _read(self, queue_name: str) -> tuple[list[bytes], list[bytes]]:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lrange(self._store.queue(queue_name).key, 0, -1)
            pipe.smembers(names.hints_key(queue_name))
            waiting, callers = map(_or_none_of, pipe.execute(raise_on_error=False))
        return list(waiting), sorted(callers)

    def _scores(self, queue_name: str, callers: Sequence[bytes]) -> dict[bytes, float]:
        with self._redis.pipeline(transaction=False) as pipe:
            for caller in callers:
                pipe.zrange(names.hint_key(queue_name, _text(caller)), 0, -1, withscores=True)
            found = map(_or_none_of, pipe.execute(raise_on_error=False))
            return {job_id: score for hints in found for job_id, score in hints}

    def change_priority(self, record: JobRecord, priority: int, aging_s: float) -> None:
        """Give a waiting job another priority; ``JobConflictError`` if it does not wait."""
        keys = [names.job_key(record.job_id), self._store.queue(record.queue).key]
        hints = names.hint_key(record.queue, "")
        args = [record.job_id, priority, aging_s, hints]
        answer = self._change(keys=keys, args=args).decode()
        if answer == "gone":
            raise JobNotFoundError(f"there is no job {record.job_id[:80]!r}", "job_id")
        if answer != "done":
            message = f"priority: the job does not wait any more, it is {answer}"
            raise JobConflictError(message, "priority")


def _or_none_of(answer: Any) -> Any:
    """A reply of a pipeline; nothing for a key of another type."""
    if isinstance(answer, ResponseError):
        return ()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
