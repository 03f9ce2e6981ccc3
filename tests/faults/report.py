"""The table of all faults: docs/faults.json, and docs/faults.md rendered from it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.catalogue import GROUPS, ROWS, Row
from tests.faults.registry import Result, Verdict
from tests.faults.tested_rows import TESTED

ROOT = Path(__file__).resolve().parents[2]
JSON_FILE = ROOT / "docs" / "faults.json"
TABLE_FILE = ROOT / "docs" / "faults.md"

_HEAD = """# Faults

Faults that are injected, the goal of each, and the worst figures over all rounds. Written by `make
faults` (`python -m tests.faults`, see its `--help`), which continues after a row that misses its
goal; the figures of a row are those of its last run. `make test` runs most rows with fewer rounds
and asserts what does not depend on time. A row that tests of other folders inject names them.

*holds*: every round met the goal. **misses**: the last column has the reason. *not run*: no run
exists yet. *waits*: for a part of the product that does not exist yet.

"""


@dataclass(frozen=True, slots=True)
class Line:
    """The result of a row's last run."""

    verdict: Verdict
    rounds: int = 0
    worst: str = ""
    detail: str = ""
    seconds: float = 0.0
    on: str = ""


def to_line(result: Result, seconds: float) -> Line:
    verdict = Verdict.HOLDS if result.is_held else Verdict.MISSES
    machine = f"{platform.system()} {platform.machine()}"
    return Line(verdict, result.rounds, result.worst, result.detail, round(seconds, 1), machine)


def read_lines() -> dict[str, Line]:
    """The results of earlier runs."""
    if not JSON_FILE.exists():
        return {}
    found = json.loads(JSON_FILE.read_text())
    return {key: Line(**{**one, "verdict": Verdict(one["verdict"])}) for key, one in found.items()}


def write(lines: Mapping[str, Line], table: Path = TABLE_FILE, data: Path = JSON_FILE) -> None:
    data.parent.mkdir(exist_ok=True)
    data.write_text(json.dumps({key: asdict(line) for key, line in lines.items()}, indent=1) + "\n")
    table.write_text(render(lines))


def render(lines: Mapping[str, Line]) -> str:
    parts = [_HEAD, _summary(lines), "\n"]
    group = ""
    for row in ROWS:
        if (name := GROUPS[row.id[0]]) != group:
            group = name
            parts.append(f"\n## {group}\n\n")
            parts.append(
                "| | fault | goal | rounds | worst | verdict |\n|---|---|---|---|---|---|\n"
            )
        parts.append(_row(row, line_of(row, lines)))
    return "".join(parts)


def line_of(row: Row, lines: Mapping[str, Line]) -> Line:
    """The last result of a row."""
    if row.waits_for:
        return Line(Verdict.WAITS, detail=f"for {row.waits_for}")
    return lines.get(row.id, Line(Verdict.NOT_RUN))


def _summary(lines: Mapping[str, Line]) -> str:
    verdicts = [line_of(row, lines).verdict for row in ROWS]
    counts = ", ".join(f"{verdicts.count(v)} {v.value}" for v in Verdict if v in verdicts)
    return f"{len(ROWS)} faults: {counts}.\n"


def _row(row: Row, line: Line) -> str:
    verdict = f"**{line.verdict.value}**" if line.verdict is Verdict.MISSES else line.verdict.value
    if line.detail:
        verdict += f": {line.detail}"
    rounds = str(line.rounds) if line.rounds else ""
    tests = [f"`{node.rpartition('::')[2]}`" for node in TESTED.get(row.id, ())]
    fault = " · ".join([row.fault, *tests])
    cells = (row.id, fault, row.goal, rounds, line.worst, verdict)
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n"
