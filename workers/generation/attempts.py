"""Opens attempts: from then on the job belongs to this worker, and events of others are refused."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.contract.records import JobClass
from jobs.contract.requests import Request, decode_request
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.lua import claim_scripts


@dataclass(frozen=True, slots=True)
class Attempt:
    """An open attempt. ``seq``: number of the newest event in the log; ``queued_s``: wait so far.

    ``cancel_reason``: not empty if the job was cancelled before the attempt. ``deaths``: number of
    worker deaths that the job is suspected of. ``ran_s``: time since its first attempt started.
    ``left_s``: time until the job's deadline, if it has one. ``is_line``: it is a
    batch's. The others are the record's.
    """

    job_id: str
    attempt: int
    seq: int
    request_data: bytes
    queued_s: float
    cancel_reason: str = ""
    deaths: int = 0
    ran_s: float = 0.0
    job_class: JobClass = "interactive"
    caller: str = ""
    weight: float = 1.0
    yields: int = 0
    left_s: float | None = None
    is_line: bool = False

    def request(self) -> Request:
        """The job's request; raises ``ContractError`` if it cannot be decoded."""
        return decode_request(self.request_data)


class AttemptOpener:
    """Opens attempts for the worker with the name ``worker``."""

    def __init__(self, redis: SyncRedis, worker: str) -> None:
        self._worker = worker
        self._script = redis.register_script(claim_scripts.OPEN_ATTEMPT)

    def open(self, job_id: str) -> Attempt | None:
        """The attempt; ``None`` if the job has ended or does not belong to this worker."""
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
        attempt, seq, data, queued_s, reason, deaths, ran_s, *order = rest
        job_class, caller, weight, yields, left_s, batch = order
        return Attempt(
            job_id,
            attempt,
            seq,
            data,
            max(0.0, float(queued_s)),
            reason.decode(errors="replace"),
            deaths,
            max(0.0, float(ran_s)),
            "batch" if job_class == b"batch" else "interactive",
            caller.decode(errors="replace"),
            max(float(weight), 0.01),
            yields,
            float(left_s) if left_s else None,
            batch != b"",
        )
