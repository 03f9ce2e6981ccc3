"""All architectures whose models we can write; ``make test`` tries some of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.architectures.chosen import EVERY
from tests.helpers.server import ROOT
from tests.proofs.registry import Result, Tally, proof

_COUNT = re.compile(r"(\d+) (passed|failed|errors?)")


@proof(
    "architectures",
    goal="0 failing tests of all architectures: text and vectors are the library's, with company, "
    "caches and aborts",
    full=1,
)
def test_every_architecture_does_what_the_document_says(rounds: int) -> Result:
    tally = Tally()
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/architectures"],
            cwd=ROOT,
            env={**os.environ, EVERY: "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        last = done.stdout.strip().rpartition("\n")[2]
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        tally.check(done.returncode == 0, "; ".join(failed[:5]) or last or done.stderr[-300:])
        tally.rounds += 1
        for number, word in _COUNT.findall(last):
            tally.note(word, int(number), float("inf"), "tests")
    return tally.result()
