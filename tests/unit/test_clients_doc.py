"""docs/clients.md names the versions that `make clients` installs."""

from __future__ import annotations

import json
import re

from tests.helpers.server import ROOT

_CLIENTS = ROOT / "tests" / "clients"
_ROW = re.compile(r"^\| (\S+) \| (\d\S*) \|", re.MULTILINE)
_PIN = re.compile(r"^(\S+)==(\S+)", re.MULTILINE)


def test_the_table_has_the_versions_that_are_pinned() -> None:
    written = set(_ROW.findall((ROOT / "docs" / "clients.md").read_text()))
    pinned = {*_pins(_CLIENTS / "requirements.lock"), *_pins(ROOT / "requirements-dev.lock")}
    node = json.loads((_CLIENTS / "node" / "package.json").read_text())["dependencies"].items()
    names = {"openai-python": "openai", "openai-node": "openai", "anthropic-python": "anthropic"}
    assert {(names.get(name, name), version) for name, version in written} <= pinned | set(node)
    wanted = re.findall(r"^[a-z].*$", (_CLIENTS / "requirements.in").read_text(), re.MULTILINE)
    assert set(wanted) <= {names.get(name, name) for name, _ in written}


def _pins(path) -> list[tuple[str, str]]:
    return _PIN.findall(path.read_text())
