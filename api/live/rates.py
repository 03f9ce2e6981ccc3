"""Rates and means of one model, from the counters of its heartbeats and of its ended jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.contract.records import WorkerStatus
from jobs.storage.totals import Sum

_WEIGHT = 0.3  # of the newest mean


class Rates:
    """Tokens per second between the last two heartbeats; means of the jobs that ended last."""

    def __init__(self) -> None:
        self.prefill = 0.0
        self.decode = 0.0
        self.cached_share: float | None = None
        self.ttft_ms: float | None = None
        self.service_s: float | None = None
        self._of_job: dict[str, float] = {}
        self._last: WorkerStatus | None = None
        self._sums: Mapping[Sum, float] | None = None

    def add(self, status: WorkerStatus | None, sums: Mapping[Sum, float]) -> None:
        """Take the counters of one reading; ``status`` may be the same as before."""
        last, self._last = self._last, status
        if status is None or last is None or status.pid != last.pid:
            self.prefill = self.decode = 0.0
            self._of_job = {}
        elif status.beat_at > last.beat_at:
            self._compare(last, status)
        self._compare_sums(sums)

    def of_job(self, job_id: str) -> float:
        """Generated tokens per second of a running job."""
        return self._of_job.get(job_id, 0.0)

    def _compare(self, last: WorkerStatus, status: WorkerStatus) -> None:
        seconds = status.beat_at - last.beat_at
        num_read = status.prefilled_tokens - last.prefilled_tokens
        num_cached = status.cached_tokens - last.cached_tokens
        self.prefill = _rate(num_read, seconds)
        self.decode = _rate(status.generated_tokens - last.generated_tokens, seconds)
        if num_read + num_cached > 0:
            self.cached_share = round(max(0, num_cached) / (num_read + num_cached), 3)
        before = {job.job_id: job.generated_tokens for job in last.jobs}
        self._of_job = {
            job.job_id: _rate(job.generated_tokens - before.get(job.job_id, 0), seconds)
            for job in status.jobs
        }

    def _compare_sums(self, sums: Mapping[Sum, float]) -> None:
        before, self._sums = self._sums or dict.fromkeys(sums, 0.0), sums
        num = sums[Sum.TIMED_JOBS] - before[Sum.TIMED_JOBS]
        if num <= 0:
            return
        added = {name: sums[name] - before[name] for name in sums}
        self.ttft_ms = round(_mean(self.ttft_ms, added[Sum.TTFT_S] / num * 1000), 1)
        seconds = (added[Sum.PREFILL_S] + added[Sum.DECODE_S]) / num
        self.service_s = round(_mean(self.service_s, seconds), 2)


def _rate(num: int, seconds: float) -> float:
    return round(max(0, num) / seconds, 1)


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else (1 - _WEIGHT) * before + _WEIGHT * newest
