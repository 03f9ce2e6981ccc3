"""Which jobs may have killed a worker (docs/adr/0011-suspects.md).

A job that crashes an engine mostly does so before its first output. So the suspects are the jobs
without output in their current attempt, or all jobs if every one had output. In the next worker no
other job is admitted until a suspect has output.
"""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import RedisError

from jobs.contract.records import JobRecord
from jobs.storage import names
from jobs.storage.connection import SyncRedis, is_transient


def find_suspects(redis: SyncRedis, in_hand: Iterable[JobRecord]) -> set[str]:
    """Ids of the suspects among the jobs that a worker held when it died."""
    records = list(in_hand)
    silent = {record.job_id for record in records if not _has_output(redis, record)}
    return silent or {record.job_id for record in records}


def _has_output(redis: SyncRedis, record: JobRecord) -> bool:
    """Whether the attempt's log has more than its ``started`` event."""
    first = f"{record.attempt}-0"
    try:
        return len(redis.xrange(names.log_key(record.job_id), min=first, count=2)) > 1
    except RedisError as error:
        if is_transient(error):
            raise
        return False  # the key is no log, so the job has no output
