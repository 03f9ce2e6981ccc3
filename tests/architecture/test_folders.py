"""What belongs where: no Python beside the models, Redis' names in one file, settings in one."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("api", "bench", "jobs", "workers")
# The second one spells the names of earlier versions, to move what lies there.
_SPELLERS = (
    _ROOT / "jobs" / "storage" / "names.py",
    _ROOT / "jobs" / "storage" / "object_names.py",
    _ROOT / "jobs" / "upgrade" / "moves.py",
)


def test_the_model_folders_hold_no_python() -> None:
    found = [path for name in ("models", "adapters") for path in (_ROOT / name).rglob("*.py")]
    assert found == []


@pytest.mark.parametrize("prefix", ["mgs:", "mgs-gen-", "mgs-ctl-", "rq:"])
def test_redis_names_are_spelled_in_one_file(prefix: str) -> None:
    """RQ's too: what RQ does not name itself would else be spelled anew at each use."""
    found = [
        place
        for place, text in _texts_elsewhere()
        if prefix in text and not text.startswith(("mgs: ", "mgs:\n"))
    ]
    assert found == []


def test_what_looks_for_names_finds_them_where_they_are_spelled() -> None:
    """The counter-proof of the test above, for a name in an f-string too."""
    values = [str(text.value) for text in _texts_in_code(_SPELLERS[0])]
    assert "mgs:desired" in values
    assert "rq:worker:" in values


@functools.cache
def _texts_elsewhere() -> list[tuple[str, str]]:
    """Every text of the code that is not in a speller's file, and where it is."""
    return [
        (f"{path.relative_to(_ROOT)}:{text.lineno}", str(text.value))
        for path in _sources()
        if path not in _SPELLERS
        for text in _texts_in_code(path)
    ]


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
