"""LlamaIndex."""

from __future__ import annotations

import pytest

from tests.clients.trying import LLAMA_INDEX_PYTHON, MODELS, all_ok, try_python

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat complete complete_through_chat embeddings stream stream_asynchronous structured_output
    structured_output_by_a_tool tools tools_stream
"""


@pytest.mark.parametrize("model", MODELS)
def test_llama_index_is_answered(url: str, model: str) -> None:
    assert try_python("llama_index_cases", url, model, LLAMA_INDEX_PYTHON) == all_ok(CASES)
