"""Slots: a job leaves its queue only when one is free for its class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from jobs.contract.records import JobClass

_LOOK_S = 1.0  # how often a batch consumer that waits looks whether its jobs starve


class SlotLimiter:
    """Limits running sequences to the number of slots. There are none before ``open``.

    A job takes one slot per sequence. It may take more than are free: the engine queues the excess
    sequences, and no further job enters until a slot is free. Nor does one while a job holds the
    slots.

    Interactive jobs enter as if no batch job ran, which then gives way. Batch jobs enter while no
    interactive one waits or has its prompt read, and no more than ``limit_batch`` says. When they
    have waited for ``starve_s`` beside interactive jobs, one enters with the next free slot; until
    it has had its quantum (``unpin``), that slot is taken for everybody. ``has_batch_waiting()``
    says whether a batch job waits at all; it is asked after that time only.
    """

    def __init__(
        self, starve_s: float = 60.0, has_batch_waiting: Callable[[], bool] = lambda: False
    ) -> None:
        self._slots = 0
        self._num_of: dict[JobClass, int] = {"interactive": 0, "batch": 0}
        self._num_pinned = 0
        self._batch_limit = 0
        self._is_interactive_idle = True
        self._is_reading = False
        self._is_batch_owed = False
        self._batch_ran_at = time.monotonic()
        self._starve_s = starve_s
        self._has_batch_waiting = has_batch_waiting
        self._is_closed = False
        self._holders: set[str] = set()
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        return sum(self._num_of.values())

    def num_of(self, job_class: JobClass) -> int:
        """Running sequences of the class."""
        return self._num_of[job_class]

    @property
    def num_slots(self) -> int:
        return self._slots

    @property
    def num_excess(self) -> int:
        """By how many the running sequences exceed the slots."""
        return self.taken - self._slots

    def open(self, slots: int) -> None:
        with self._changed:
            self._slots = slots
            self._changed.notify_all()

    def close(self) -> None:
        """Make all current and later calls of ``wait`` return False."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait until an interactive job may enter. False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self.has_room)
            return not self._is_closed

    @property
    def has_room(self) -> bool:
        """True if an interactive job may enter."""
        num = self._num_of["interactive"] + self._num_pinned + self._is_batch_owed
        return num < self._slots and not self._holders

    def wait_batch(self) -> bool:
        """Wait until a batch job may enter. False once closed."""
        while True:
            with self._changed:
                ready = self._changed.wait_for(
                    lambda: self._is_closed or self._has_batch_room, _LOOK_S
                )
                if ready:
                    return not self._is_closed
                is_due = not self._is_batch_owed and self._is_starving
            if is_due:
                self._owe_batch(self._has_batch_waiting())

    @property
    def _has_batch_room(self) -> bool:
        if self._holders or self.taken >= self._slots:
            return False
        if self._is_batch_owed:
            return True
        if not self._is_interactive_idle or self._is_reading:
            return False
        return not self._num_of["interactive"] or self._num_of["batch"] < self._batch_limit

    @property
    def _is_starving(self) -> bool:
        waited_s = time.monotonic() - self._batch_ran_at
        return not self._num_of["batch"] and self._slots > 0 and waited_s > self._starve_s

    def _owe_batch(self, is_owed: bool) -> None:
        with self._changed:
            self._is_batch_owed = is_owed
            self._batch_ran_at = time.monotonic()
            self._changed.notify_all()

    def note_interactive_idle(self, is_idle: bool) -> None:
        """Note whether the interactive queue has a job that may be taken."""
        with self._changed:
            self._is_interactive_idle = is_idle
            self._changed.notify_all()

    def note_batch_idle(self, is_idle: bool) -> None:
        """Note whether the batch queue has a job that may be taken."""
        if is_idle and self._is_batch_owed:
            self._owe_batch(False)

    def limit_batch(self, num_sequences: int, *, is_reading: bool) -> None:
        """Set how many batch sequences may run beside the interactive ones.

        ``is_reading``: the prompt of an interactive job is being read.
        """
        if (num_sequences, is_reading) == (self._batch_limit, self._is_reading):
            return
        with self._changed:
            self._batch_limit, self._is_reading = num_sequences, is_reading
            self._changed.notify_all()

    def hold(self, job_id: str) -> None:
        """Admit no other job until ``release``."""
        with self._changed:
            self._holders.add(job_id)

    def release(self, job_id: str) -> None:
        """End ``hold``. No effect for a job that does not hold the slots."""
        if job_id in self._holders:
            with self._changed:
                self._holders.discard(job_id)
                self._changed.notify_all()

    def take(self, num_sequences: int, job_class: JobClass = "interactive") -> None:
        with self._changed:
            self._num_of[job_class] += num_sequences

    def pin(self, num_sequences: int, *, is_due: bool = False) -> bool:
        """Let a batch job that enters keep its slots for a quantum if one is owed or it ``is_due``.

        Returns whether it keeps them.
        """
        with self._changed:
            if not is_due and not self._is_batch_owed:
                return False
            self._is_batch_owed = False
            self._num_pinned += num_sequences
            return True

    def unpin(self, num_sequences: int) -> None:
        """The job has had its quantum, or has ended."""
        with self._changed:
            self._num_pinned -= num_sequences
            self._changed.notify_all()

    def give(self, num_sequences: int, job_class: JobClass = "interactive") -> None:
        with self._changed:
            self._num_of[job_class] -= num_sequences
            if job_class == "batch":
                self._batch_ran_at = time.monotonic()
            self._changed.notify_all()
