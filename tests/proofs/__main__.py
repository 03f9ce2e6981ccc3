"""``python -m tests.proofs``: run the proofs with their full counts and write the table.

The proofs run one after the other; one that fails does not stop the next.
"""

from __future__ import annotations

import argparse
import sys
import time
from unittest import SkipTest

from tests.faults.registry import Verdict, result_of
from tests.proofs import report
from tests.proofs.registry import Proof, all_proofs


def main() -> int:
    """Exit status 1 when a proof misses its goal."""
    proofs = all_proofs()
    arguments = _parse(sorted(proofs))
    num_missed = 0
    for name in arguments.names or sorted(proofs):
        try:
            line = _try(proofs[name], max(1, round(proofs[name].full * arguments.scale)))
        except SkipTest as reason:
            print(f"{name:20} skipped: {reason}", flush=True)
            continue
        num_missed += line.verdict is Verdict.MISSES
        report.merge({name: line}, proofs)
        print(f"{name:20} {line.verdict:8} {line.seconds:6.1f} s  {line.figure}", flush=True)
        if line.detail:
            print(f"     {line.detail}", flush=True)
    return 1 if num_missed else 0


def _try(proof: Proof, rounds: int) -> report.Line:
    start = time.monotonic()
    result = result_of(lambda: proof.act(rounds))
    return report.to_line(proof, result, time.monotonic() - start)


def _parse(known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(known)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such proof: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
