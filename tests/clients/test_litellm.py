"""LiteLLM."""

from __future__ import annotations

import pytest

from tests.clients.trying import MODELS, all_ok, try_python

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat chat_asynchronous embeddings errors hosted_vllm responses stream structured_output tools
    tools_stream
"""


@pytest.mark.parametrize("model", MODELS)
def test_litellm_is_answered(url: str, model: str) -> None:
    assert try_python("litellm_cases", url, model) == all_ok(CASES)
