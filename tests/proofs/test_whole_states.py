"""Chats with a common beginning, on GGUF models whose memory cannot be cut."""

from __future__ import annotations

import random

from tests.architectures.documented import gguf_memories
from tests.architectures.gguf_reference import NOISE, Reference, opened, prompt_of
from tests.engines.driving import drain, ids_of, sequence
from tests.proofs.registry import Result, Tally, proof
from workers.engines.base import Sequence, StepEvent
from workers.engines.llama_cpp.engine import LlamaCppEngine

_CHATS = 12
_PER_MODEL = 10  # rounds


@proof(
    "whole-states",
    goal=f"0 tokens of {_CHATS} chats at once with a common beginning that plain llama.cpp, which "
    f"reads each alone, would not say (near-ties of {NOISE} nats in F32)",
    full=200,
    fast=2,
)
def test_recurrent_and_hybrid_models_answer_chats_at_once_as_each_alone(rounds: int) -> Result:
    tally = Tally()
    names = [name for name, memory in gguf_memories().items() if memory == "whole states"]
    for number, start in enumerate(range(0, rounds, _PER_MODEL)):
        name = names[number % len(names)]
        _try(name, number, range(start, min(rounds, start + _PER_MODEL)), tally)
    tally.rounds = rounds
    return tally.result(f"{min(len(names), -(-rounds // _PER_MODEL))} architectures")


def _try(name: str, number: int, seeds: range, tally: Tally) -> None:
    engine, reference = opened(name, num_slots=(4, 8, _CHATS)[number % 3]), Reference(name)
    try:
        for seed in seeds:
            for one, said in _chats(engine, random.Random(seed), seed * 100):
                _judge(name, reference, one, said, tally)
    finally:
        engine.close()
        reference.close()


def _chats(
    engine: LlamaCppEngine, rng: random.Random, seed: int
) -> list[tuple[Sequence, list[int]]]:
    """The chats, each with the tokens of its answer; one of them is aborted, and left out."""
    common = prompt_of(seed, rng.choice([1, 8, 40, 90, 150]))
    sequences = [
        sequence(prompt_of(seed + 1 + n, len(common) + rng.randint(1, 60), common), 12)
        for n in range(_CHATS)
    ]
    events: list[StepEvent] = []
    for one in sequences:
        engine.submit(one)
        events += [event for _ in range(rng.randint(0, 3)) for event in engine.step()]
    aborted = rng.choice(sequences)
    engine.abort(aborted.sequence_id)
    events += drain(engine)
    kept = [one for one in sequences if one is not aborted]
    return [(one, ids_of(events, one.sequence_id)) for one in kept]


def _judge(name: str, reference: Reference, one: Sequence, said: list[int], tally: Tally) -> None:
    tally.check(len(said) == one.max_tokens, f"{name}: {len(said)} of {one.max_tokens} tokens")
    gap = max(reference.gaps(one.prompt, said), default=0.0)
    tally.check(gap <= NOISE, f"{name}: a token is {gap:.3f} nats below the best one")
    tally.note("largest distance from the best token", gap, NOISE, "nats")
    tally.count("answers")
