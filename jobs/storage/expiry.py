"""Deletes jobs and stored responses that have expired (docs/adr/0021-sleep.md)."""

from __future__ import annotations

from rq.job import Job

from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import job_scripts

_PAUSE_S = 5  # between two calls that come each second: sleep, or no supervisor


class Expiry:
    """Called each second. A pause between two calls, of whichever supervisor, does not count."""

    def __init__(self, redis: SyncRedis) -> None:
        self._script = redis.register_script(job_scripts.FORGET_EXPIRED)

    def forget(self, at_most: int = 1000) -> int:
        """Delete what has expired, ``at_most`` of each kind. Returns how many were deleted."""
        of_job = [names.job_key(""), names.log_key(""), names.request_key(""), Job.key_for("")]
        return int(
            self._script(
                keys=[
                    names.LAST_EXPIRY,
                    names.JOB_EXPIRY,
                    names.RESPONSE_EXPIRY,
                    names.JOB_INDEX,
                    names.LIVE,
                ],
                args=[at_most, _PAUSE_S, len(of_job), *of_job, names.response_key("")],
            )
        )
