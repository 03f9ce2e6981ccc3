"""The table of proofs and the decorator that registers them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proofs import report
from tests.proofs.registry import PROOFS, Proof, Result, Tally, all_proofs, proof


def one(name: str, is_held: bool = True) -> Proof:
    return Proof(name, "a sentence", "0 wrong", lambda rounds: Result("0", is_held, 1), 10, 1)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "proofs.md", tmp_path / "proofs.json"


def test_a_new_result_is_added_to_those_of_earlier_runs(files: tuple[Path, Path]) -> None:
    proofs = {name: one(name) for name in ("first", "second", "third")}
    line = report.to_line(one("first"), Result("0 wrong", True, 10), 1.23)
    report.merge({"first": line, "second": line}, proofs, *files)
    report.merge({"second": replace(line, rounds=20)}, proofs, *files)
    found = report.read_lines(files[1])
    assert {name: found[name].rounds for name in found} == {"first": 10, "second": 20}
    written = json.loads(files[1].read_text())["first"]
    assert {"figure", "goal", "rounds", "seconds", "commit", "date"} <= written.keys()
    rows = files[0].read_text().splitlines()[-3:]
    assert [row.split(" | ")[5] for row in rows] == ["holds", "holds", "not run"]


def test_a_proof_that_misses_its_goal_has_the_reason(files: tuple[Path, Path]) -> None:
    tally = Tally()
    tally.check(False, "a job was lost")
    tally.note("until the error", 3.0, 2.0)
    line = report.to_line(one("first"), tally.result(), 1.0)
    report.merge({"first": line}, {"first": one("first")}, *files)
    assert "**misses**: a job was lost; until the error misses its goal" in files[0].read_text()


def test_the_line_of_a_removed_proof_is_left_out(files: tuple[Path, Path]) -> None:
    line = report.to_line(one("gone"), Result("0 wrong", True, 10), 1.0)
    report.merge({"gone": line}, {"gone": one("gone")}, *files)
    report.merge({}, {"first": one("first")}, *files)
    assert report.read_lines(files[1]) == {}


def test_the_decorator_makes_a_test_with_few_rounds() -> None:
    seen = []

    @proof("for a test", goal="none", full=10, fast=2)
    def test_something_holds(rounds: int) -> Result:
        seen.append(rounds)
        return Result("0 wrong", True, rounds, is_right=len(seen) < 2)

    try:
        test_something_holds()
        assert seen == [2]
        assert PROOFS["for a test"].what == "something holds"
        with pytest.raises(AssertionError, match="0 wrong"):
            test_something_holds()
    finally:
        del PROOFS["for a test"]


def test_every_proof_of_this_folder_is_found() -> None:
    proofs = all_proofs()
    assert proofs
    assert all(one.goal and one.full >= one.fast for one in proofs.values())
