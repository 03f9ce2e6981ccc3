"""All orders of all steps of small worlds: the protocol holds, and seeded faults are found.

``make prove`` searches larger worlds (tests/proofs/test_job_protocol.py).
"""

from __future__ import annotations

import pytest

from tests.explorer.search import Search
from tests.explorer.seeded_faults import FAULTS, SeededFault
from tests.explorer.world import JobWorld
from tests.explorer.worlds import SMALL

_MAX_STATES = 20_000


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_steps_breaks_the_protocol(name: str) -> None:
    result = Search(JobWorld(SMALL[name]), _MAX_STATES).run()
    assert result.is_complete, result
    assert not result.violations, result


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_seeded_fault_is_found_with_its_history(fault: SeededFault) -> None:
    assert fault.failure() is None
