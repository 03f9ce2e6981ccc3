"""A cancel that comes between the opening of a job and its admission is not lost."""

from __future__ import annotations

from workers.runtime.pending_cancels import PendingCancels


def test_a_cancel_during_preparation_is_remembered() -> None:
    stops = PendingCancels()
    stops.begin("a")
    stops.note("a", "enough")
    assert stops.end("a") == "enough"


def test_a_cancel_of_another_job_is_not() -> None:
    stops = PendingCancels()
    stops.begin("a")
    stops.note("b", "enough")
    assert stops.end("a") is None


def test_the_next_job_does_not_inherit_a_cancel() -> None:
    stops = PendingCancels()
    stops.begin("a")
    stops.note("a", "enough")
    stops.begin("b")
    assert stops.end("b") is None
    stops.note("b", "late")
    stops.begin("c")
    assert stops.end("c") is None
