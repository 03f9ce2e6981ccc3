"""Results that are made in one run, or in several pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.measurement import BenchError
from bench.result_file import ResultFile

MACHINE = {"date": "2026-01-01", "processor": "P", "load before": "0.1"}


def write_piece(path: Path, value: float, **changes: str) -> None:
    file = ResultFile(path, MACHINE | changes, {"models": "tiny"}, is_continued=True)
    file.record.add("chat", "tiny", "ours", file.record.next_round, {"x": value})
    file.write()


def test_each_piece_adds_its_rounds(tmp_path: Path) -> None:
    path = tmp_path / "results" / "bench.json"
    write_piece(path, 1.0)
    write_piece(path, 2.0, date="2026-01-02", **{"load before": "0.3"})
    content = json.loads(path.read_text())
    assert [(m["round"], m["value"]) for m in content["measurements"]] == [(0, 1.0), (1, 2.0)]
    assert [piece["date"] for piece in content["pieces"]] == ["2026-01-01", "2026-01-02"]
    assert content["machine"] == {"processor": "P"}


def test_pieces_of_different_machines_make_no_result(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_piece(path, 1.0)
    with pytest.raises(BenchError, match="another machine"):
        write_piece(path, 2.0, processor="Q")


def test_a_run_that_is_not_continued_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_piece(path, 1.0)
    assert ResultFile(path, MACHINE, {}, is_continued=False).record.next_round == 0
