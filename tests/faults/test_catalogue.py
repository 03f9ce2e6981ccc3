"""The table of faults: each row once, and each row with fast rounds is a test."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.faults.catalogue import ROWS
from tests.faults.runs import all_runs
from tests.faults.tested_rows import TESTED
from tests.helpers.server import ROOT

_HERE = Path(__file__).parent


def test_only_rows_of_the_table_are_run_and_none_that_waits() -> None:
    known = {row.id for row in ROWS if not row.waits_for}
    assert all_runs().keys() <= known


def test_the_table_has_every_row_once() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS) == 81 + 2 + 10


def test_every_row_with_fast_rounds_is_a_test_of_its_subject() -> None:
    fast = sorted(key for key, run in all_runs().items() if run.fast)
    assert fast == sorted(key for file in _HERE.glob("test_*.py") for key in _rows_tried_in(file))


def _rows_tried_in(file: Path) -> list[str]:
    found = vars(importlib.import_module(f"{__package__}.{file.stem}")).values()
    marks = [mark for test in found for mark in getattr(test, "pytestmark", [])]
    rows = [mark.args[1] for mark in marks if mark.name == "parametrize" and mark.args[0] == "run"]
    return [str(row.id) for each in rows for row in each]


def test_the_tests_that_try_a_row_exist() -> None:
    missing = [
        node
        for nodes in TESTED.values()
        for node in nodes
        for file, *names in [node.split("::")]
        if not (ROOT / file).exists()
        or (names and f"def {names[-1]}(" not in (ROOT / file).read_text())
    ]
    assert missing == []
