"""docs/clients.md names the versions that `make clients` installs."""

from __future__ import annotations

import json
import re

from tests.helpers.server import ROOT

_CLIENTS = ROOT / "tests" / "clients"
_ROW = re.compile(r"^\| (\S+) \| (\d[^|]*?) \|", re.MULTILINE)
_PIN = re.compile(r"^(\S+)==(\S+)", re.MULTILINE)
_OTHER_NAMES = {
    "openai-python": "openai",
    "openai-node": "openai",
    "anthropic-python": "anthropic",
    "ollama-python": "ollama",
}


def test_the_table_has_the_versions_that_are_pinned() -> None:
    locks = [ROOT / "requirements-dev.lock", *_CLIENTS.glob("requirements/*.lock")]
    pinned = {pin for lock in locks for pin in _PIN.findall(lock.read_text())}
    node = json.loads((_CLIENTS / "node" / "package.json").read_text())["dependencies"]
    assert written() <= pinned | set(node.items())


def test_the_table_has_every_client() -> None:
    names = {name for name, _ in written()}
    for wanted in _CLIENTS.glob("requirements/*.in"):
        assert set(re.findall(r"^[a-z].*$", wanted.read_text(), re.MULTILINE)) <= names


def written() -> set[tuple[str, str]]:
    rows = _ROW.findall((ROOT / "docs" / "clients.md").read_text())
    return {
        (_OTHER_NAMES.get(name, name), version)
        for name, versions in rows
        for version in versions.split(", ")
    }
