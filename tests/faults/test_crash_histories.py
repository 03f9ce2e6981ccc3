"""A job ends normally after the loss of any single reply, or a death after any write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.crash_histories import Fault, histories, loaded_remote
from tests.faults.registry import Tally
from tests.faults.rig import Remote

_LEAST_WRITES = 10  # submit, move, open, a few events, the end, RQ's books


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with loaded_remote() as found:
        yield found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("fault", "every"), [(Fault.REPLY_LOST, 1), (Fault.KILLED, 4)])
def test_every_history_ends_as_one_without_a_fault(
    remote: Remote, fault: Fault, every: int
) -> None:
    tally = Tally()
    histories(remote, fault, tally, every)
    assert tally.is_held, tally.result()
    assert tally.rounds >= _LEAST_WRITES // every
