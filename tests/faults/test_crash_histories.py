"""A job's life goes on whatever single reply is lost, and whoever dies after a write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.crash_histories import Mishap, histories, loaded_remote
from tests.faults.registry import Tally
from tests.faults.rig import Remote

_LEAST_WRITES = 10  # submit, move, open, a few events, the end, RQ's books


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with loaded_remote() as found:
        yield found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("mishap", "every"), [(Mishap.REPLY_LOST, 1), (Mishap.KILLED, 4)])
def test_every_history_ends_as_a_normal_one(remote: Remote, mishap: Mishap, every: int) -> None:
    tally = Tally()
    histories(remote, mishap, tally, every)
    assert tally.is_held, tally.result()
    assert tally.rounds >= _LEAST_WRITES // every
