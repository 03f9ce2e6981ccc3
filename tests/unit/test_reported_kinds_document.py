"""docs/reported_kinds.md names tests that exist."""

from __future__ import annotations

import re

from tests.helpers.server import ROOT

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_the_document_names_tests_that_exist() -> None:
    named = _TEST.findall((ROOT / "docs" / "reported_kinds.md").read_text())
    assert len(named) > 40
    missing = [
        (file, test) for file, test in named if f"def {test}(" not in (ROOT / file).read_text()
    ]
    assert missing == []
