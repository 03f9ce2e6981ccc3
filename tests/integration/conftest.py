"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api_rig import Rig, running_api


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A real API over the tests' Redis; nothing is loaded yet."""
    with running_api(tmp_path, redis_url) as running:
        yield running
