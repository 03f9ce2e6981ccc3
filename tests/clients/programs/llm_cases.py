"""llm, the command line, with our models in its `extra-openai-models.yaml`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.clients.programs.run import Target

_ADD = 'def add(a: int, b: int) -> int:\n    "Add two numbers."\n    return a + b\n'


def chat(target: Target) -> None:
    assert _llm(target, "What is 2 + 3?", "--no-stream") == "2 + 3 = 5"


def stream(target: Target) -> None:
    assert _llm(target, "Count from 1 to 5.") == "1, 2, 3, 4, 5"


def usage(target: Target) -> None:
    _, told = _run(target, "What is 2 + 3?", "--usage")
    assert "Token usage" in told, told


def structured_output(target: Target) -> None:
    question = "What is 2 + 3? Answer in JSON."
    for flag in ([], ["--no-stream"]):
        answer = _llm(target, question, "--schema", "a int, b int, total int", *flag)
        assert json.loads(answer) == {"a": 2, "b": 3, "total": 5}


def tools(target: Target) -> None:
    for flag in ([], ["--no-stream"]):
        answer, told = _run(target, "What is 2 + 3?", "--functions", _ADD, "--tools-debug", *flag)
        assert answer == "2 + 3 = 5"
        assert "Tool call: add({'a': 2, 'b': 3})" in told, told


def _llm(target: Target, *arguments: str) -> str:
    return _run(target, *arguments)[0]


def _run(target: Target, *arguments: str) -> tuple[str, str]:
    """What it printed, without the line's end, and what it told besides."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(json.dumps([_entry(target)]))
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "ours", "-o", "temperature", "0", *arguments],
            env={**os.environ, "LLM_USER_PATH": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n"), done.stderr


def _entry(target: Target) -> dict[str, object]:
    return {
        "model_id": "ours",
        "model_name": target.model,
        "api_base": target.openai_url,
        "supports_schema": True,
        "supports_tools": True,
    }
