"""Which jobs may have killed a worker (docs/adr/0011-suspects.md).

A job that crashes an engine mostly does so before its first output. So the suspects are the jobs
without output in their current attempt, or all jobs if every one had output. In the next worker no
other job is admitted until a suspect has output.

A job with output in an earlier attempt is silent because it was just taken up again, for instance
after it gave way. It counts as having had output, unless it was suspected before: then it stands
just before the step that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redis.exceptions import RedisError

from jobs.contract.errors import ContractError
from jobs.contract.events import EventKind, decode_event
from jobs.contract.records import JobRecord
from jobs.storage import names
from jobs.storage.connection import SyncRedis, is_transient


def find_suspects(redis: SyncRedis, in_hand: Iterable[JobRecord]) -> set[str]:
    """Ids of the suspects among the jobs that a worker held when it died."""
    records = list(in_hand)
    silent = {record.job_id for record in records if not _has_output(redis, record)}
    return silent or {record.job_id for record in records}


def _has_output(redis: SyncRedis, record: JobRecord) -> bool:
    """Whether the log has more than the ``started`` events of the attempts that count."""
    was_suspected = record.deaths or record.device_losses
    first = f"{record.attempt}-0" if was_suspected else "-"
    num_starts = 1 if was_suspected else record.attempt
    try:
        entries = redis.xrange(names.log_key(record.job_id), min=first, count=num_starts + 1)
    except RedisError as error:
        if is_transient(error):
            raise
        return False  # the key is no log, so the job has no output
    return len(entries) > num_starts or any(_is_output(fields) for _, fields in entries)


def _is_output(fields: Mapping[bytes, bytes]) -> bool:
    try:
        return decode_event(fields.get(b"e", b"")).kind is not EventKind.STARTED
    except ContractError:
        return False
