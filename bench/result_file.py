"""A run as JSON: every number of every round, the goals, the machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from bench.goals import GOALS, Outcome
from bench.measurement import BenchError, Measurement, Record

_OF_THE_PIECE = ("date", "load before")  # may differ between the parts of one result


class ResultFile:
    """The file of one result, made in one run or, with ``is_continued``, in several parts.

    ``BenchError`` if the parts come from different machines or versions.
    """

    def __init__(
        self, path: Path, machine: dict[str, str], settings: dict[str, str], *, is_continued: bool
    ) -> None:
        self._path = path
        before = json.loads(path.read_text()) if is_continued and path.exists() else {}
        self._machine = {k: v for k, v in machine.items() if k not in _OF_THE_PIECE}
        if before and before["machine"] != self._machine:
            raise BenchError(f"{path.name} was made on another machine or with other versions")
        piece = {key: machine[key] for key in _OF_THE_PIECE if key in machine} | settings
        self._pieces = [*before.get("pieces", []), piece]
        self.record = Record(
            [Measurement(**each) for each in before.get("measurements", [])],
            before.get("left_out", []),
            before.get("failures", []),
        )

    def write(self) -> None:
        """Write the results so far, so that an aborted run keeps them."""
        record = self.record
        content = {
            "machine": self._machine,
            "pieces": self._pieces,
            "goals": [_judged(goal.judge(record)) for goal in GOALS],
            "left_out": record.left_out,
            "failures": record.failures,
            "measurements": [dataclasses.asdict(each) for each in record.measurements],
        }
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _judged(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.goal.name,
        "limit": f"{outcome.goal.bound.value} {outcome.goal.limit}",
        "median": outcome.median,
        "rounds": len(outcome.values),
        "verdict": outcome.verdict,
    }
