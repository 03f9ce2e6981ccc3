"""What the documents name is there: the files of their links, modules, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("api", "bench", "docs", "jobs", "scripts", "tests", "workers")
_OF_THE_PAST = ("CHANGELOG.md", "docs/moves.md")  # they name what is gone
_DOCUMENTS = [
    path
    for folder in (".", "adapters", "bench", "docs", "models", "scripts", "tests")
    for path in sorted((_ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
    if "node_modules" not in path.parts and path.relative_to(_ROOT).as_posix() not in _OF_THE_PAST
]
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
_PATH = re.compile(rf"`((?:{'|'.join(_FOLDERS)})/[\w./-]+)`")
_MODULE = re.compile(r"`(\w+\.py)`")
_MOVE = re.compile(r"^\| `([\w/]+\.py)` \| (.*) \|$", re.MULTILINE)


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    missing = [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    missing += [path for path in _PATH.findall(text) if not (_ROOT / path).exists()]
    missing += [name for name in _MODULE.findall(text) if not _is_a_module(name)]
    assert missing == []


def test_moved_modules_are_where_the_table_says() -> None:
    moves = _MOVE.findall((_ROOT / "docs" / "moves.md").read_text())
    assert len(moves) > 200
    for old, there in moves:
        assert not (_ROOT / old).exists()
        named = _PATH.findall(there)
        assert named or there.startswith("removed")
        assert all((_ROOT / path).exists() for path in named), old


def _is_a_module(name: str) -> bool:
    return any(next((_ROOT / folder).rglob(name), None) for folder in _FOLDERS)
