"""Who is blamed for a worker's death, and how that stays knowable (docs/adr/0011-suspects.md).

A job that brings an engine down mostly does so before its first word. So suspected are the jobs of
which the attempt had said nothing yet, if there are any. One that has been suspected comes into the
next worker alone: nobody else is let in before it has spoken.
"""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import RedisError

from jobs.contract.records import JobRecord
from jobs.storage import names
from jobs.storage.connection import SyncRedis, is_transient


def find_suspects(redis: SyncRedis, in_hand: Iterable[JobRecord]) -> set[str]:
    """Ids of those jobs, of all that a worker had in hand when it died, that may have killed it."""
    records = list(in_hand)
    silent = {record.job_id for record in records if not _has_output(redis, record)}
    return silent or {record.job_id for record in records}


def _has_output(redis: SyncRedis, record: JobRecord) -> bool:
    """Whether the attempt's log holds more than that it has started."""
    first = f"{record.attempt}-0"
    try:
        return len(redis.xrange(names.log_key(record.job_id), min=first, count=2)) > 1
    except RedisError as error:
        if is_transient(error):
            raise
        return False  # its log is none, so that it cannot have said anything
