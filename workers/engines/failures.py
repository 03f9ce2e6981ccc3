"""What an exception in the draw of one sequence's token becomes: the end of that sequence alone."""

from __future__ import annotations

import logging

from jobs.contract.errors import JobError
from workers.engines.base import SequenceFailure

log = logging.getLogger(__name__)


def failure_of(sequence_id: int, error: Exception) -> SequenceFailure:
    """A ``JobError`` says itself what it is; anything else is a fault of ours, and is logged."""
    if isinstance(error, JobError):
        return SequenceFailure(sequence_id, error.message, error.code, error.param)
    log.error("a sequence failed", extra={"sequence": sequence_id}, exc_info=error)
    message = f"the next token could not be drawn: {error!r}"
    return SequenceFailure(sequence_id, message, JobError.code)
