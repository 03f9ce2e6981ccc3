"""What belongs where: no Python beside the models, Redis' names in one file, settings in one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("api", "jobs", "workers")


def test_the_model_folders_hold_no_python() -> None:
    found = [path for name in ("models", "adapters") for path in (_ROOT / name).rglob("*.py")]
    assert found == []


def test_redis_names_are_spelled_in_one_file() -> None:
    owner = _ROOT / "jobs" / "names.py"
    found = [
        f"{path.relative_to(_ROOT)}:{text.lineno}"
        for path in _sources()
        if path != owner
        for text in _texts_in_code(path)
        if "mgs:" in str(text.value) and not str(text.value).startswith(("mgs: ", "mgs:\n"))
    ]
    assert found == []


def _sources() -> Iterator[Path]:
    for package in _PACKAGES:
        yield from (_ROOT / package).rglob("*.py")


def _texts_in_code(path: Path) -> Iterator[ast.Constant]:
    """String constants of a file that are not docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documentation:
            assert isinstance(node, ast.Constant)
            yield node
