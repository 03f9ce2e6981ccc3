"""Errors about batches."""

from __future__ import annotations

from jobs.contract.errors import JobError


class BatchNotFoundError(JobError):
    """There is no batch of that id, or it belongs to another caller."""

    code = "batch_not_found"


class BatchStateError(JobError):
    """The batch has a status in which this cannot be done."""

    code = "batch_not_changeable"


def no_batch(batch_id: str) -> BatchNotFoundError:
    """The error about an id without a batch."""
    return BatchNotFoundError(f"there is no batch {batch_id[:80]!r}", "batch_id")
