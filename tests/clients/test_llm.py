"""llm, the command line."""

from __future__ import annotations

import pytest

from tests.clients.trying import MODELS, all_ok, try_python

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CASES = """
    chat stream structured_output tools usage
"""


@pytest.mark.parametrize("model", MODELS)
def test_llm_is_answered(url: str, model: str) -> None:
    assert try_python("llm_cases", url, model) == all_ok(CASES)
