"""The rule that makes a reader see each event once and in order, whatever pub/sub does to it."""

from __future__ import annotations

from enum import Enum

from jobs.contract.events import BEFORE_ALL, Event, EventId


class Verdict(Enum):
    """What to do with an event from the bell."""

    TAKE = "take"  # the next event: show it
    DROP = "drop"  # seen already
    GAP = "gap"  # something before it is missing: read the log first


class EventMerger:
    """Judges events that arrive from the bell against those shown so far.

    Sequence numbers have no holes, across attempts too: an attempt counts on from what the log
    held when it opened. So anything but the direct successor means that something was missed.
    """

    def __init__(self, last: EventId = BEFORE_ALL) -> None:
        self.last = last

    def judge(self, event: Event) -> Verdict:
        """What to do with an event of pub/sub; does not move ``last``."""
        attempt, seq = self.last
        if event.seq == seq + 1 and event.attempt >= attempt:
            return Verdict.TAKE
        return Verdict.DROP if event.id <= self.last else Verdict.GAP

    def take(self, event: Event) -> None:
        """Note that ``event`` (the next one, or the log's next) is shown."""
        event_id = event.id
        assert event_id > self.last, (event_id, self.last)
        self.last = event_id
