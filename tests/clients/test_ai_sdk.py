"""AI SDK with its provider for compatible servers."""

from __future__ import annotations

import pytest

from tests.clients.trying import MODELS, all_ok, try_node

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat embeddings stream structured_output structured_output_stream tools tools_forced
    tools_stream
"""


@pytest.mark.parametrize("model", MODELS)
def test_ai_sdk_is_answered(url: str, model: str) -> None:
    assert try_node("ai_sdk_cases", url, model) == all_ok(CASES)
