"""openai-python: the one of the development environment; behind the marker, other versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.trying import (
    DEV_PYTHON,
    LLAMA_INDEX_PYTHON,
    MODELS,
    NEWEST_PYTHON,
    all_ok,
    try_python,
)

pytestmark = pytest.mark.timeout(300)

CHAT = """
    chat chat_asynchronous chat_in_a_tier chat_in_choices_with_logprobs chat_stream
    chat_stream_helper chat_within_a_deadline completions
    embeddings errors models structured_output structured_output_stream tools tools_forced
    tools_stream
"""
RESPONSES = """
    background conversation errors stream stream_helper structured_output tools tools_stream whole
"""
FILES = "errors files files_by_pages upload"
PYTHONS = [
    pytest.param(DEV_PYTHON, id="dev"),
    pytest.param(NEWEST_PYTHON, id="newest", marks=pytest.mark.clients),
    pytest.param(LLAMA_INDEX_PYTHON, id="version-2", marks=pytest.mark.clients),
]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("model", MODELS)
def test_openai_python_chats_completes_and_embeds(url: str, model: str, python: Path) -> None:
    assert try_python("openai_cases", url, model, python) == all_ok(CHAT)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("model", MODELS)
def test_openai_python_gets_responses(url: str, model: str, python: Path) -> None:
    assert try_python("openai_responses_cases", url, model, python) == all_ok(RESPONSES)


@pytest.mark.parametrize("python", PYTHONS)
def test_openai_python_keeps_files(url: str, python: Path) -> None:
    assert try_python("openai_files_cases", url, MODELS[0], python) == all_ok(FILES)
