"""The table of proofs: docs/proofs.json, and docs/proofs.md rendered from it."""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.registry import Result, Verdict
from tests.proofs.registry import Proof

ROOT = Path(__file__).resolve().parents[2]
JSON_FILE = ROOT / "docs" / "proofs.json"
TABLE_FILE = ROOT / "docs" / "proofs.md"

_HEAD = """# Proofs

Guarantees of the product over many rounds. Written by `make prove` (some only: `make prove
ONLY="..."`), which continues after a proof that misses its goal; each line is of its last run.
`make test` runs the same with few rounds. How to add one: `tests/proofs/__init__.py`.

| name | what | goal | rounds | figure | verdict | seconds | commit | date |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Line:
    """The result of a proof's last run. ``figure``: the worst of all rounds."""

    goal: str
    verdict: Verdict
    figure: str
    detail: str
    rounds: int
    seconds: float
    commit: str
    date: str


def to_line(proof: Proof, result: Result, seconds: float) -> Line:
    return Line(
        goal=proof.goal,
        verdict=Verdict.HOLDS if result.is_held else Verdict.MISSES,
        figure=result.worst,
        detail=result.detail,
        rounds=result.rounds,
        seconds=round(seconds, 1),
        commit=_commit(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def read_lines(data: Path = JSON_FILE) -> dict[str, Line]:
    """The results of earlier runs."""
    if not data.exists():
        return {}
    found = json.loads(data.read_text())
    return {key: Line(**{**one, "verdict": Verdict(one["verdict"])}) for key, one in found.items()}


def merge(
    new: Mapping[str, Line],
    proofs: Mapping[str, Proof],
    table: Path = TABLE_FILE,
    data: Path = JSON_FILE,
) -> None:
    """Write the new lines, and the earlier lines of other proofs that still exist."""
    lines = {**read_lines(data), **new}
    kept = {name: lines[name] for name in sorted(proofs) if name in lines}
    data.write_text(json.dumps({key: asdict(line) for key, line in kept.items()}, indent=1) + "\n")
    rows = [_row(proofs[name], kept.get(name)) for name in sorted(proofs)]
    table.write_text(_HEAD + "".join(rows))


def _row(proof: Proof, line: Line | None) -> str:
    cells = [proof.name, proof.what, proof.goal]
    if line is None:
        cells += ["", "", Verdict.NOT_RUN.value, "", "", ""]
    else:
        verdict = f"**{line.verdict.value}**" if line.verdict is Verdict.MISSES else "holds"
        verdict += f": {line.detail}" if line.detail else ""
        cells += [str(line.rounds), line.figure, verdict, str(line.seconds), line.commit, line.date]
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n"


def _commit() -> str:
    """The commit, with a + when files differ from it."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return f"{head}+" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    output = subprocess.check_output(command, cwd=ROOT, text=True, stderr=subprocess.DEVNULL)
    return output.strip()
