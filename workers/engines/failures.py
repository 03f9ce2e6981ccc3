"""How an engine reports failures: of one sequence by an event, of the device by an exception.

An exception in the sampling of one sequence ends that sequence only. A failed command of a GPU
makes everything since then unknown, of all sequences: the process ends and a new one continues.
"""

from __future__ import annotations

import logging

from jobs.contract.errors import JobError
from workers.engines.base import SequenceFailure

log = logging.getLogger(__name__)


class DeviceLostError(BaseException):
    """The device failed: results and states since the last checked step are unknown.

    A ``BaseException``, so that no handler of one sequence's or one job's errors catches it: the
    worker process ends, with nothing of the step shown or kept.
    """


def failure_of(sequence_id: int, error: Exception) -> SequenceFailure:
    """The event for ``error``. Anything but a ``JobError`` is a bug of ours and is logged."""
    if isinstance(error, JobError):
        return SequenceFailure(sequence_id, error.message, error.code, error.param)
    log.error("a sequence failed", extra={"sequence": sequence_id}, exc_info=error)
    message = f"the next token could not be drawn: {error!r}"
    return SequenceFailure(sequence_id, message, JobError.code)
