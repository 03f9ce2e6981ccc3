"""Cancels that come while a job is being prepared: after it was opened, before it can be ended."""

from __future__ import annotations


class PendingCancels:
    """Remembers the cancel of the one job in preparation, from whatever thread it comes."""

    def __init__(self) -> None:
        self._job_id: str | None = None
        self._reason: str | None = None

    def begin(self, job_id: str) -> None:
        self._reason = None
        self._job_id = job_id

    def note(self, job_id: str, reason: str) -> None:
        """Cancel ``job_id`` if it is the one; any other is not our business."""
        if job_id == self._job_id:
            self._reason = reason

    def end(self, job_id: str) -> str | None:
        """The job is admitted: the reason of its cancel, if there was one."""
        self._job_id = None
        return self._reason
