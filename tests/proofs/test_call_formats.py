"""Random calls in each call format: writer, grammar and reader agree."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor

from tests.helpers.call_pairs import check_drawn, check_written
from tests.proofs.registry import Result, Tally, proof
from workers.engines.fake import FakeTokenizer
from workers.markup.calls.formats import FORMATS
from workers.text.grammar import GrammarCompiler

_BLOCK = 250  # rounds of one format with a seed of their own


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
    blocks = range(-(-rounds // _BLOCK))
    with ProcessPoolExecutor(mp_context=context) as pool:
        for faults in pool.map(faults_of, *zip(*itertools.product(blocks, FORMATS), strict=True)):
            for fault in faults:
                tally.check(False, fault)
    tally.rounds = len(blocks) * _BLOCK
    pairs = tally.rounds * len(FORMATS)
    return tally.result(f"{len(FORMATS)} formats, {pairs} calls, {pairs} texts")


def faults_of(block: int, name: str) -> list[str]:
    """The faults of one block of rounds in the format ``name``."""
    compiler = GrammarCompiler(FakeTokenizer())
    rng = random.Random(f"{name} {block}")
    found = [_fault(rng, compiler, name) for _ in range(_BLOCK)]
    return [f"{name}: {fault}" for fault in found if fault]


def _fault(rng: random.Random, compiler: GrammarCompiler, name: str) -> str:
    """The error of one round, or an empty text."""
    try:
        tool = check_written(rng, compiler, name)
        check_drawn(rng, compiler, name, tool)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
