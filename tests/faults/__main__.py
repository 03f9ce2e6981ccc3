"""``python -m tests.faults``: run the faults with their full counts and write the table.

The rows run one after the other; a row that fails does not stop the next.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults import report
from tests.faults.catalogue import ROWS
from tests.faults.registry import Run, Verdict, result_of
from tests.faults.rig import Rig
from tests.faults.runs import all_runs


def main() -> int:
    """Exit status 1 when a row misses its goal."""
    arguments = _parse()
    runs = all_runs()
    chosen = [row.id for row in ROWS if row.id in (arguments.only or runs) and row.id in runs]
    rig = Rig(arguments.soak_s)
    num_missed = 0
    try:
        for key in chosen:
            line = _try(runs[key], rig, max(1, round(runs[key].full * arguments.scale)))
            num_missed += line.verdict is Verdict.MISSES
            report.write({**report.read_lines(), key: line})
            print(f"{key:4} {line.verdict:8} {line.seconds:6.1f} s  {line.worst}", flush=True)
            if line.detail:
                print(f"     {line.detail}", flush=True)
    finally:
        rig.close()
    return 1 if num_missed else 0


def _try(run: Run, rig: Rig, rounds: int) -> report.Line:
    start = time.monotonic()
    result = result_of(lambda: run.act(rig, rounds))
    return report.to_line(result, time.monotonic() - start)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ID", help="these rows only, such as F1 R5")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    parser.add_argument("--soak-s", type=float, default=1800.0, help="length of the soak (L7)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
