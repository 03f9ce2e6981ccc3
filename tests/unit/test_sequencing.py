"""Whatever pub/sub does, a reader with the log shows what was sent, once and in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.events import BEFORE_ALL, Event, EventId, EventKind
from jobs.stream.sequencing import EventMerger, Verdict
from tests.helpers.samples import event


def sent_by(sizes: list[int]) -> list[Event]:
    """The events of a job with attempts of those sizes: ``seq`` counts on, the last is the end."""
    events: list[Event] = []
    for attempt, size in enumerate(sizes, start=1):
        for _ in range(size):
            events.append(event(EventKind.CHUNK, len(events) + 1, attempt))
    events[-1] = event(EventKind.FINISHED, events[-1].seq, events[-1].attempt)
    return events


class Reader:
    """What the hub does with verdicts, without Redis: ``log`` is what was written so far."""

    def __init__(self, after: EventId = BEFORE_ALL) -> None:
        self.log: list[Event] = []
        self.shown: list[Event] = []
        self._merger = EventMerger(after)

    def hear(self, heard: Event) -> None:
        match self._merger.judge(heard):
            case Verdict.TAKE:
                self._show([heard])
            case Verdict.GAP:
                self.read_log()

    def read_log(self) -> None:
        self._show([written for written in self.log if written.id > self._merger.last])

    def _show(self, events: list[Event]) -> None:
        for found in events:
            self._merger.take(found)
            self.shown.append(found)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[Any]]:
    """A job's events, and for each what the wake-up and the reader do when it is written."""
    sent = sent_by(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    deeds = st.sampled_from(["deliver", "drop", "twice", "late", "old", "subscribe again", "look"])
    return sent, [draw(st.lists(deeds, min_size=1, max_size=3)) for _ in sent]


@given(histories(), st.randoms(use_true_random=False))
def test_any_interleaving_gives_exactly_what_was_sent(
    history: tuple[list[Event], list[list[str]]], random: Any
) -> None:
    sent, deeds = history
    reader, late = Reader(), []
    for written, todo in zip(sent, deeds, strict=True):
        reader.log.append(written)  # the record first, then the wake-up
        for deed in todo:
            if deed in ("deliver", "twice"):
                reader.hear(written)
            if deed == "twice":
                reader.hear(written)
            if deed == "late":
                late.append(written)
            if deed == "old":
                reader.hear(random.choice(reader.log))
            if deed == "look" or deed == "subscribe again":
                reader.read_log()
        if late and random.random() < 0.5:
            reader.hear(late.pop(random.randrange(len(late))))
    reader.read_log()  # after a silent second
    assert reader.shown == sent


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_replay_from_any_event_shows_the_rest(sizes: list[int], data: st.DataObject) -> None:
    sent = sent_by(sizes)
    start = data.draw(st.integers(0, len(sent)))
    reader = Reader(sent[start - 1].id if start else BEFORE_ALL)
    reader.log = sent
    for heard in data.draw(st.permutations(sent)):
        reader.hear(heard)
    reader.read_log()
    assert reader.shown == sent[start:]


def test_a_stale_attempts_event_after_the_next_one_began_is_dropped() -> None:
    merger = EventMerger()
    merger.take(event(seq=1, attempt=2))
    assert merger.judge(event(seq=2, attempt=1)) is Verdict.DROP


def test_judging_moves_nothing() -> None:
    merger = EventMerger()
    for _ in range(2):
        assert merger.judge(event(seq=1)) is Verdict.TAKE
        assert merger.judge(event(seq=2)) is Verdict.GAP


def test_taking_an_event_twice_is_an_error_of_ours() -> None:
    merger = EventMerger()
    merger.take(event(seq=1))
    with pytest.raises(AssertionError):
        merger.take(event(seq=1))
