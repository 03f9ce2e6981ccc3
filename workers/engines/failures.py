"""Turns an exception in the sampling of one sequence into the failure of that sequence only."""

from __future__ import annotations

import logging

from jobs.contract.errors import JobError
from workers.engines.base import SequenceFailure

log = logging.getLogger(__name__)


def failure_of(sequence_id: int, error: Exception) -> SequenceFailure:
    """The event for ``error``. Anything but a ``JobError`` is a bug of ours and is logged."""
    if isinstance(error, JobError):
        return SequenceFailure(sequence_id, error.message, error.code, error.param)
    log.error("a sequence failed", extra={"sequence": sequence_id}, exc_info=error)
    message = f"the next token could not be drawn: {error!r}"
    return SequenceFailure(sequence_id, message, JobError.code)
