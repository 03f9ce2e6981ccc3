"""What must hold of jobs whose worker was replaced through no fault of theirs."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.contract.events import EventKind
from tests.helpers.driver import Driver, assert_whole, text


def assert_continued(
    driver: Driver, culprit: str, fault: str, length: int, neighbours: Sequence[str]
) -> None:
    """All jobs end in a later attempt, with the text of an undisturbed run, and without a death.

    The prompt of the ``culprit`` is ``fault``, and it has ``length`` tokens;
    the n-th neighbour, from 1, has n times "y" and 60 tokens.
    """
    for job_id in (culprit, *neighbours):
        found = driver.wait_ended(job_id)
        assert_whole(found)
        assert found[-1].kind is EventKind.FINISHED, found[-1]
        assert found[-1].attempt > 1
        assert driver.record(job_id).deaths == 0
    assert text(driver.events(culprit)) == driver.text_of(driver.generate("y" * len(fault), length))
    for number, job_id in enumerate(neighbours, 1):
        undisturbed = driver.generate("y" * number, 60)
        assert text(driver.events(job_id)) == driver.text_of(undisturbed)
