"""The second turn of a chat on GGUF models whose memory cannot be cut: what is read again."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from tests.architectures.gguf_reference import opened, prompt_of
from tests.engines.driving import sequence
from tests.proofs.registry import Result, Tally, proof
from workers.engines.base import Token
from workers.engines.llama_cpp.engine import LlamaCppEngine

_NAMES = ("lfm2", "qwen35", "mamba")
_HISTORY, _NEW = 1500, 75  # tokens; the new ones are an answer and a message
_OPENING = 5
_LIMIT = 0.2


@proof(
    "second-turn",
    goal=f"the first token after {_NEW} new tokens of a chat of {_HISTORY} takes at most {_LIMIT} "
    "of the processor time of the first turn's (engine alone, tiny models, medians of pairs)",
    full=9,
)
def test_the_second_turn_of_a_hybrid_model_begins_soon(rounds: int) -> Result:
    tally = Tally()
    for name in _NAMES:
        engine = opened(name)
        try:
            _pair(engine, 0)  # the first passes also allocate
            ratio = statistics.median(_pair(engine, 1 + seed) for seed in range(rounds))
        finally:
            engine.close()
        tally.check(ratio <= _LIMIT, f"{name}: {ratio:.3f}")
        tally.note(f"{name}, of the first turn", ratio, _LIMIT, "")
    tally.rounds = rounds
    return tally.result()


def _pair(engine: LlamaCppEngine, seed: int) -> float:
    """The second turn's part of the first one's time. The answer is not what was generated."""
    first = prompt_of(2 * seed, _HISTORY)
    first_s = _first_token_s(engine, first)
    return _first_token_s(engine, [*first, *prompt_of(2 * seed + 1, _NEW)]) / first_s


def _first_token_s(engine: LlamaCppEngine, prompt: list[int]) -> float:
    """Processor time up to the first token: a model with one thread computes in this one."""
    started = time.thread_time()
    engine.submit(replace(sequence(prompt, 16), num_opening=_OPENING))
    found_s = None
    while engine.has_work:
        events = engine.step()
        if found_s is None and any(isinstance(event, Token) for event in events):
            found_s = time.thread_time() - started
    assert found_s is not None, "it has generated"
    return found_s
