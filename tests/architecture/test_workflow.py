"""The job file for macOS runners names commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_ROOT = Path(__file__).parents[2]
_WORKFLOW = _ROOT / ".github" / "workflows" / "macos.yml"


def test_each_command_of_the_workflow_exists() -> None:
    jobs = yaml.safe_load(_WORKFLOW.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = re.findall(r"\bscripts/\S+", " ".join(commands))
    used = re.findall(r"\bmake (?:\w+=\"[^\"]*\" )*([a-z-]+)", " ".join(commands))
    assert {"install", "check", "test"} <= set(used) <= targets
    assert scripts
    assert all((_ROOT / script).exists() for script in scripts)


def test_the_workflow_runs_on_apple_silicon_with_two_pythons() -> None:
    (job,) = yaml.safe_load(_WORKFLOW.read_text())["jobs"].values()
    assert job["runs-on"].startswith("macos")
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
