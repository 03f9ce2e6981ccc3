"""All orders of all steps of small worlds: the protocol holds, and planted faults are found.

``make prove`` goes through larger ones (tests/proofs/test_job_protocol.py).
"""

from __future__ import annotations

import pytest

from tests.explorer.planted import FAULTS, Planted
from tests.explorer.search import Search
from tests.explorer.world import JobWorld
from tests.explorer.worlds import SMALL

_MOST_STATES = 20_000


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_steps_breaks_the_protocol(name: str) -> None:
    result = Search(JobWorld(SMALL[name]), _MOST_STATES).run()
    assert result.is_whole, result
    assert not result.violations, result


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_with_its_history(fault: Planted) -> None:
    assert fault.complaint() is None
