"""Opening an attempt: the moment from which a job is this worker's, and no other's words count."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.contract.requests import Request, decode_request
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts


@dataclass(frozen=True, slots=True)
class Attempt:
    """An open attempt. ``seq`` is the newest event in the log; ``queued_s`` the wait so far.

    ``cancel_reason`` is set when somebody asked for the job's end before it began. ``deaths``: of
    how many workers' deaths it is suspected. ``ran_s``: since its first attempt began.
    """

    job_id: str
    attempt: int
    seq: int
    request_data: bytes
    queued_s: float
    cancel_reason: str = ""
    deaths: int = 0
    ran_s: float = 0.0

    def request(self) -> Request:
        """What the job asks for; ``ContractError`` when it cannot be read."""
        return decode_request(self.request_data)


class AttemptOpener:
    """Opens attempts in the name of one worker loop."""

    def __init__(self, redis: SyncRedis, worker: str) -> None:
        self._worker = worker
        self._script = redis.register_script(claim_scripts.OPEN_ATTEMPT)

    def open(self, job_id: str) -> Attempt | None:
        """The attempt, or ``None`` when the job has ended already, or is not this worker's."""
        state, *rest = self._script(
            keys=[
                names.job_key(job_id),
                names.log_key(job_id),
                names.request_key(job_id),
                names.claims_key(names.slug_of_worker(self._worker)),
            ],
            args=[job_id, self._worker],
        )
        if state != b"open":
            return None
        attempt, seq, data, queued_s, reason, deaths, ran_s = rest
        return Attempt(
            job_id,
            attempt,
            seq,
            data,
            max(0.0, float(queued_s)),
            reason.decode(errors="replace"),
            deaths,
            max(0.0, float(ran_s)),
        )
