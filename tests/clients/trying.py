"""Runs a client's program against the running server and reads how its cases ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.server import ROOT

MODELS = ["demo", "demo.gguf"]
DEV_PYTHON = Path(sys.executable)
NEWEST_PYTHON = ROOT / ".venv-clients" / "newest" / "bin" / "python"
LLAMA_INDEX_PYTHON = ROOT / ".venv-clients" / "llama_index" / "bin" / "python"

_HERE = Path(__file__).parent
_TIMEOUT_S = 200.0
_START = '{"case"'


def try_python(program: str, url: str, model: str, python: Path = NEWEST_PYTHON) -> dict[str, str]:
    """How the cases of ``programs/<program>.py`` ended, by their names."""
    return _try([str(python), str(_HERE / "programs" / "run.py"), program, url, model])


def try_node(program: str, url: str, model: str) -> dict[str, str]:
    """How the cases of ``node/<program>.mjs`` ended, by their names."""
    return _try(["node", str(_HERE / "node" / "run.mjs"), program, url, model])


def all_ok(cases: str) -> dict[str, str]:
    """What is expected of the cases with these names, separated by spaces."""
    return dict.fromkeys(cases.split(), "ok")


def _try(command: list[str]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    env["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for a price table
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{command[2]} ended with {done.returncode}:\n{done.stderr}")
    # Some clients print advertisements.
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(_START)]
    return {case["case"]: case["outcome"] for case in told}
