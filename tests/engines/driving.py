"""Driving an engine by hand: what the contract suite says over and over."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from collections.abc import Sequence as ListLike
from dataclasses import dataclass, field

import numpy as np

from jobs.contract.sampling import Sampling
from workers.engines.base import Engine, FinishReason, Prefill, Sequence, StepEvent, Token

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
# Company and cuts change the shapes of the matrices and with them the last bits of the logits: a
# draw falls the other way about once in 10,000 tokens at this temperature, in 200 at 4.
SEEDED = Sampling(temperature=0.6, top_k=10, seed=7, ignore_eos=True)

_sequence_ids = itertools.count(1000)


def sequence(prompt: ListLike[int], max_tokens: int = 12, sampling: Sampling = GREEDY) -> Sequence:
    """A sequence under an id of its own."""
    return Sequence(next(_sequence_ids), prompt, max_tokens, sampling)


@dataclass(slots=True)
class Transcript:
    """What an engine said about one sequence, with the number of the step of each token."""

    prefills: list[Prefill] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [token.token_id for token in self.tokens]

    @property
    def finish(self) -> FinishReason | None:
        return self.tokens[-1].finish if self.tokens else None


def run(engine: Engine, sequences: ListLike[Sequence]) -> list[Transcript]:
    """Submit all and step until nothing is left; transcripts in the order of ``sequences``."""
    for one in sequences:
        engine.submit(one)
    transcripts = {one.sequence_id: Transcript() for one in sequences}
    for step in itertools.count():
        if not engine.has_work:
            break
        _record(transcripts, step, engine.step())
    return list(transcripts.values())


def run_one(
    engine: Engine, prompt: ListLike[int], max_tokens: int = 12, sampling: Sampling = GREEDY
) -> Transcript:
    """The transcript of one sequence that has the engine for itself."""
    return run(engine, [sequence(prompt, max_tokens, sampling)])[0]


def next_token(engine: Engine, prompt: ListLike[int], sampling: Sampling) -> Token:
    """The one token after ``prompt``."""
    return run_one(engine, prompt, 1, sampling).tokens[0]


def log_probabilities(engine: Engine, prompt: ListLike[int]) -> np.ndarray:
    """Log-probabilities of all tokens after ``prompt``, shape (vocab_size,), float64."""
    vocab_size = engine.info.vocab_size
    token = next_token(engine, prompt, Sampling(temperature=0.0, num_logprobs=vocab_size))
    values = np.full(vocab_size, -np.inf)
    for token_id, logprob in token.top_logprobs:
        values[token_id] = logprob
    return values


def chat(engine: Engine, text: str) -> list[int]:
    """The prompt of one user turn, in the format of the demo model."""
    rendered = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return engine.tokenizer.encode(rendered, add_special=True, parse_special=True)


def long_prompt(engine: Engine, num_tokens: int) -> list[int]:
    """A prompt of exactly ``num_tokens``."""
    ids = engine.tokenizer.encode("one two three ", add_special=False, parse_special=False)
    return (ids * (num_tokens // len(ids) + 1))[:num_tokens]


def step_until(engine: Engine, sequence_id: int, num_tokens: int) -> None:
    """Step until that sequence has had ``num_tokens`` tokens."""
    seen = 0
    while seen < num_tokens:
        seen += sum(1 for event in engine.step() if _is_token_of(event, sequence_id))


def drain(engine: Engine) -> list[StepEvent]:
    """All events until nothing is left."""
    events: list[StepEvent] = []
    while engine.has_work:
        events += engine.step()
    return events


def ids_of(events: ListLike[StepEvent], sequence_id: int) -> list[int]:
    """Token ids of one sequence among ``events``."""
    return [e.token_id for e in events if isinstance(e, Token) and e.sequence_id == sequence_id]


def _is_token_of(event: StepEvent, sequence_id: int) -> bool:
    return isinstance(event, Token) and event.sequence_id == sequence_id


def _record(transcripts: dict[int, Transcript], step: int, events: list[StepEvent]) -> None:
    for event in events:
        transcript = transcripts[event.sequence_id]
        if isinstance(event, Token):
            transcript.tokens.append(event)
            transcript.steps.append(step)
        elif isinstance(event, Prefill):
            transcript.prefills.append(event)
        else:
            raise AssertionError(f"unexpected: {event}")


def pieces_between(
    steps: ListLike[ListLike[StepEvent]], readers: Collection[int], talker: int
) -> list[int]:
    """Steps that read prompts of ``readers`` before each token of ``talker`` and after the last."""
    counts = [0]
    for events in steps:
        counts[-1] += any(isinstance(e, Prefill) and e.sequence_id in readers for e in events)
        counts += [0] * len(ids_of(events, talker))
    return counts
