"""The system under test, shared by all test files of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.rig import Rig


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    found.close()
