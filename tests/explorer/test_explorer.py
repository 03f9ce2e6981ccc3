"""All orders of all steps of small worlds: the protocol holds, and seeded faults are found.

``make prove`` searches larger worlds (tests/proofs/test_job_protocol.py).
"""

from __future__ import annotations

import pytest

from jobs.storage import names
from tests.explorer import client_moves
from tests.explorer.search import Search
from tests.explorer.seeded_faults import FAULTS, SeededFault
from tests.explorer.world import JobWorld
from tests.explorer.worlds import SMALL
from workers.rq_bridge.queue_consumer import QueueConsumer

_MAX_STATES = 20_000


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_steps_breaks_the_protocol(name: str) -> None:
    result = Search(JobWorld(SMALL[name]), _MAX_STATES).run()
    assert result.is_complete, result
    assert not result.violations, result


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_seeded_fault_is_found_with_its_history(fault: SeededFault) -> None:
    assert fault.failure() is None


def test_a_late_release_of_a_line_that_is_run_again_under_its_id_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would remove the claim of the second run. So each run has an id of its own."""
    monkeypatch.setattr(client_moves, "next_job", lambda rules, number: number)
    rules = SMALL["a line that is run again, and a delayed request"]
    (violation,) = Search(JobWorld(rules), _MAX_STATES).run().violations
    assert violation.message == "j0 is neither queued nor claimed"
    assert "tries again" in "".join(violation.history)
    assert "delayed request in close" in violation.history[-1]


def test_a_second_release_of_a_job_that_gives_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arriving late, it would remove the claim of the next take."""

    def release(consumer: QueueConsumer) -> None:
        consumer.connection.srem(consumer.claims_key, names.claim(consumer.name, "j0"))

    monkeypatch.setattr(QueueConsumer, "note_returned", release)
    rules = SMALL["a job gives way, and a request is delayed"]
    (violation,) = Search(JobWorld(rules), _MAX_STATES).run().violations
    assert violation.message == "j0 is neither queued nor claimed"
    assert "delayed request in hand_back: SREM" in violation.history[-1]
