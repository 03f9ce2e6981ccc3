"""The tree of the product: few files at the top, small rooms, files of one subject."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_TOPS = ("api", "jobs", "workers")
_MOST_AT_THE_TOP = 5
_MOST_MODULES = 14
_MOST_LINES = 300
_LONG_FILES = {
    "jobs/storage/store.py": 333,
}
"""Those that are longer than a file should be, and how long each may be: a number here may fall and
never rise, and a new name needs a reason beside it."""
_CPU_DOORS = {
    "llama_cpp": "workers/engines/llama_cpp/load/loaded_model.py",
    "mlx": "workers/engines/mlx/load/loading.py",
}
"""Of each engine the one module outside its ``cpu`` package that imports from it."""


def _files(package: str) -> Iterator[Path]:
    yield from (_ROOT / package).rglob("*.py")


def _named(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix()


@pytest.mark.parametrize("top", _TOPS)
def test_few_files_lie_at_the_top_of_a_tree(top: str) -> None:
    files = sorted(path.name for path in (_ROOT / top).glob("*.py"))
    assert len(files) <= _MOST_AT_THE_TOP, files


@pytest.mark.parametrize("top", _TOPS)
def test_a_package_has_few_modules(top: str) -> None:
    sizes = Counter(_named(path.parent) for path in _files(top) if path.name != "__init__.py")
    assert {package: size for package, size in sizes.items() if size > _MOST_MODULES} == {}


def test_a_file_is_a_subject_of_few_lines() -> None:
    lengths = {_named(p): len(p.read_text().splitlines()) for top in _TOPS for p in _files(top)}
    over = {
        name: length
        for name, length in lengths.items()
        if length > _LONG_FILES.get(name, _MOST_LINES)
    }
    assert over == {}


def test_a_file_that_has_become_short_is_no_longer_an_exception() -> None:
    short = [
        name
        for name in _LONG_FILES
        if not (_ROOT / name).exists()
        or len((_ROOT / name).read_text().splitlines()) <= _MOST_LINES
    ]
    assert short == []


@pytest.mark.parametrize("engine", _CPU_DOORS)
def test_one_module_imports_what_is_tuned_for_a_cpu(engine: str) -> None:
    """And of that only the switch, so that a GPU runs the same code without it."""
    package = f"workers.engines.{engine}.cpu"
    room = _ROOT / package.replace(".", "/")
    users = {
        _named(path): names
        for path in _files("workers")
        if room not in path.parents
        and (names := {name for name in _imported(path) if name.startswith(package)})
    }
    assert list(users) == [_CPU_DOORS[engine]]
    assert _modules_of(users[_CPU_DOORS[engine]]) == {f"{package}.tuning"}


def _imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules_of(names: set[str]) -> set[str]:
    """The modules among the names, or those in which the names are."""
    return {
        name if (_ROOT / f"{name.replace('.', '/')}.py").exists() else name.rpartition(".")[0]
        for name in names
    }
