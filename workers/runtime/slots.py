"""Slots: a job leaves the queue only when one is free."""

from __future__ import annotations

import threading


class SlotLimiter:
    """Limits running sequences to the number of slots. There are none before ``open``.

    A job takes one slot per sequence. It may take more than are free: the engine queues the excess
    sequences, and no further job enters until a slot is free. Nor does one while a job holds the
    slots.
    """

    def __init__(self) -> None:
        self._slots = 0
        self._taken = 0
        self._is_closed = False
        self._holders: set[str] = set()
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        return self._taken

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
        """Wait until a slot is free and no job holds the slots. False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self.has_room)
            return not self._is_closed

    @property
    def has_room(self) -> bool:
        """True if a slot is free and no job holds the slots."""
        return self._taken < self._slots and not self._holders

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

    def take(self, num_sequences: int) -> None:
        with self._changed:
            self._taken += num_sequences

    def give(self, num_sequences: int) -> None:
        with self._changed:
            self._taken -= num_sequences
            self._changed.notify_all()
