"""Imports point down, heavy libraries stay in their one place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_HEAVY = {"mlx", "mlx_lm", "llama_cpp", "transformers", "torch"}


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module", ["api.app", "api.cli.main", "workers.supervision.supervisor", "jobs.settings"]
)
def test_importing_it_loads_no_engine(module: str) -> None:
    assert not _imported_by(module) & _HEAVY


def test_the_command_line_loads_no_web_framework() -> None:
    assert not _imported_by("api.cli.main") & {"fastapi", "starlette", "uvicorn", "rq", "flask"}


def _imported_by(module: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after importing ``module``."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
