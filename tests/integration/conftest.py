"""Fixtures of the integration ring."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.integration.api_rig import Rig, running_api


@pytest.fixture
def rig(tmp_path: Path, redis_url: str) -> Iterator[Rig]:
    """A real API over the tests' Redis; nothing is loaded yet."""
    with running_api(tmp_path, redis_url) as running:
        yield running


@pytest.fixture
def client(rig: Rig) -> Iterator[OpenAI]:
    """The official client with strict types: a field off its type raises."""
    with OpenAI(
        base_url=f"{rig.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=20,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def background() -> Iterator[Any]:
    """Calls a function in a thread of its own; gives a future."""
    with ThreadPoolExecutor(4) as threads:
        yield threads.submit
