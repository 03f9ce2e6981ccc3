"""Random calls in each call format: writer, grammar and reader agree."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.helpers.call_pairs import check_drawn, check_written
from tests.proofs.registry import Result, Tally, proof
from workers.engines.fake import FakeTokenizer
from workers.markup.calls.formats import FORMATS
from workers.text.grammar import GrammarCompiler


@proof(
    "call-formats",
    goal="in each format, 0 arguments that its grammar refuses or its reader changes, cut "
    "anywhere; 0 texts of its grammar that are no valid call",
    full=10_000,
)
def test_calls_of_each_format_come_back_as_they_were_written(rounds: int) -> Result:
    """``rounds`` calls and as many texts of a grammar, in each format."""
    tally = Tally()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as pool:
        for faults in pool.map(partial(_faults_of, rounds), FORMATS):
            for fault in faults:
                tally.check(False, fault)
    tally.rounds = rounds
    pairs = rounds * len(FORMATS)
    return tally.result(f"{len(FORMATS)} formats, {pairs} calls, {pairs} texts")


def _faults_of(rounds: int, name: str) -> list[str]:
    compiler = GrammarCompiler(FakeTokenizer())
    rng = random.Random(f"{name} {rounds}")
    checks = [partial(check, rng, compiler, name) for check in (check_written, check_drawn)]
    found = [_fault(check) for _ in range(rounds) for check in checks]
    return [f"{name}: {fault}" for fault in found if fault]


def _fault(check: Callable[[], None]) -> str:
    """The error of one check, or an empty text."""
    try:
        check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
