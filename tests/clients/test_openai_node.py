"""openai-node."""

from __future__ import annotations

import pytest

from tests.clients.trying import MODELS, all_ok, try_node

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat chat_stream chat_stream_helper completions embeddings errors models responses
    responses_structured_output responses_tools structured_output tools tools_stream
"""


@pytest.mark.parametrize("model", MODELS)
def test_openai_node_is_answered(url: str, model: str) -> None:
    assert try_node("openai_node_cases", url, model) == all_ok(CASES)
