"""How often and how long to wait for a hub that fails in passing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.contract.errors import JobError

_MAX_DELAY_S = 30.0
_MAX_ASKED_S = 300.0  # of ``Retry-After``; a longer one ends the pull

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PassingError(Exception):
    """Why the hub failed. It may succeed later, at the earliest after ``wait_s`` seconds."""

    def __init__(self, error: JobError, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s


class Patience:
    """Waits 1, 2, 4 ... 30 s between tries, and gives up after ``max_tries`` without progress."""

    def __init__(
        self,
        max_tries: int = 7,
        first_s: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._max_tries = max_tries
        self._first_s = first_s
        self._sleep = sleep
        self._num_failures = 0

    def note_progress(self) -> None:
        """Count failures anew."""
        self._num_failures = 0

    def wait(self, failure: PassingError) -> None:
        """Wait before the next try. Raises the failure's error when there is none."""
        self._num_failures += 1
        delay_s = min(self._first_s * 2 ** (self._num_failures - 1), _MAX_DELAY_S)
        delay_s = max(delay_s, failure.wait_s or 0.0)
        if self._num_failures >= self._max_tries or delay_s > _MAX_ASKED_S:
            raise failure.error
        log.warning(
            "the hub fails, will retry", extra={"why": failure.error.message, "in_s": delay_s}
        )
        self._sleep(delay_s)

    def keep_trying(self, call: Callable[[], _T]) -> _T:
        """The result of ``call``, repeated while it raises ``PassingError``."""
        while True:
            try:
                result = call()
            except PassingError as failure:
                self.wait(failure)
            else:
                self.note_progress()
                return result
