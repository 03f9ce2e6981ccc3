"""langchain-openai."""

from __future__ import annotations

import pytest

from tests.clients.trying import MODELS, all_ok, try_python

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat embeddings errors responses stream stream_asynchronous structured_output tools tools_stream
"""


@pytest.mark.parametrize("model", MODELS)
def test_langchain_is_answered(url: str, model: str) -> None:
    assert try_python("langchain_openai_cases", url, model) == all_ok(CASES)
