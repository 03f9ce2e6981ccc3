"""Free slots, as the queue's loop sees them: no job leaves the queue before there is one."""

from __future__ import annotations

import threading


class SlotLimiter:
    """Counts the sequences in hand against the slots; closed until it is opened.

    A job takes one slot per sequence, and may take more than there are: what exceeds waits inside
    the engine, in order, and the slots stays shut until the count is below the slots again. It also
    stays shut while somebody holds it.
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
        """Let every waiter go, now and later, without a slot."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """True as soon as a slot is free and nobody holds the slots, False when it was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self.has_room)
            return not self._is_closed

    @property
    def has_room(self) -> bool:
        """A slot is free, and nobody holds the slots."""
        return self._taken < self._slots and not self._holders

    def hold(self, job_id: str) -> None:
        """Let no other job in until ``release``."""
        with self._changed:
            self._holders.add(job_id)

    def release(self, job_id: str) -> None:
        """End of ``hold``; of no effect for a job that does not hold the slots."""
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
