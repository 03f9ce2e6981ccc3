"""Ordering of events: a reader gets each event once and in order, despite lossy pub/sub."""

from __future__ import annotations

from enum import Enum

from jobs.contract.events import BEFORE_ALL, Event, EventId


class Verdict(Enum):
    """What to do with an event from pub/sub."""

    TAKE = "take"  # the next event
    DROP = "drop"  # seen already
    GAP = "gap"  # something before it is missing: read the log first


class EventMerger:
    """Compares events from pub/sub with those delivered so far.

    Sequence numbers have no gaps, also across attempts: an attempt continues after the last event
    in the log. So an event that is not the direct successor means that another was missed.
    """

    def __init__(self, last: EventId = BEFORE_ALL) -> None:
        self.last = last

    def judge(self, event: Event) -> Verdict:
        """What to do with an event from pub/sub. Does not change ``last``."""
        attempt, seq = self.last
        if event.seq == seq + 1 and event.attempt >= attempt:
            return Verdict.TAKE
        return Verdict.DROP if event.id <= self.last else Verdict.GAP

    def take(self, event: Event) -> None:
        """Note that ``event`` has been delivered."""
        event_id = event.id
        assert event_id > self.last, (event_id, self.last)
        self.last = event_id
