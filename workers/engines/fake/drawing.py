"""The fake engine's logits, and the tokens drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workers.engines import mirostat, reference_sampler
from workers.engines.base import FinishReason, PromptLogprobs, Sequence, Token
from workers.engines.dry import Breakers
from workers.engines.fake.faults import Faults, Place
from workers.engines.fake.tokenizer import END_ID, FAULTY_ID, VOCAB_SIZE, FakeTokenizer

_END_EVERY = 512
_PREFERENCE = 6.0  # logit of the counting text over the noise

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Running:
    """A sequence and how far it has come; ``adapter`` is the one in use."""

    sequence: Sequence
    adapter: str | None
    num_left: int
    mirostat_mu: float | None
    faults: Faults
    breakers: Breakers
    tokens: list[int] = field(init=False)
    num_prefilled: int = 0
    num_cached: int | None = None
    """Of its prompt, when it was begun."""

    def __post_init__(self) -> None:
        self.tokens = list(self.sequence.prompt)

    @property
    def num_prompt(self) -> int:
        return len(self.sequence.prompt)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def is_prefilled(self) -> bool:
        return self.num_prefilled == self.num_prompt

    @property
    def in_cache(self) -> list[int]:
        """The tokens that have been read: of those generated, not the last."""
        return self.tokens[: self.num_prefilled + max(0, self.num_generated - 1)]


def draw(running: Running, tokenizer: FakeTokenizer) -> Token:
    """The next token; what it raises is the sequence's own fault."""
    logits = logits_after(running.tokens, running.adapter)
    token_id = _faulty_token(running, tokenizer) if running.faults.raises else None
    if token_id is None:
        token_id = _choose(running, logits)
    running.tokens.append(token_id)
    running.num_left -= 1
    return _to_token(running, token_id, logits)


def _faulty_token(running: Running, tokenizer: FakeTokenizer) -> int | None:
    """Raises where the prompt has asked for that; a token if the tokenizer is to do so."""
    running.faults.check(Place.DRAW, running.num_generated)
    if not running.faults.is_due(Place.PIECE, running.num_generated):
        return None
    tokenizer.num_faults += 1
    return FAULTY_ID


def prompt_logprobs(running: Running, num_top: int) -> PromptLogprobs:
    """What the prompt's own tokens were worth."""
    prompt = list(running.sequence.prompt)
    entries = (
        _logprob(logits_after(prompt[:place], running.adapter), prompt[place], num_top)
        for place in range(1, len(prompt))
    )
    return PromptLogprobs(running.sequence.sequence_id, tuple(entries))


def logits_after(tokens: list[int], adapter: str | None) -> reference_sampler.Logits:
    """Noise that depends on position and last token, and a liking for the counting text."""
    position = len(tokens)
    random = np.random.default_rng([position, tokens[-1]])
    logits = random.standard_normal(VOCAB_SIZE)
    logits[:32] -= 20.0  # neither control characters
    logits[127:256] -= 20.0  # nor broken ones by chance
    logits[256:] -= 20.0
    is_end = position % _END_EVERY == _END_EVERY - 1
    logits[_scripted(position, adapter)] += _PREFERENCE + 20.0 * is_end
    return logits


def _scripted(position: int, adapter: str | None) -> int:
    if position % _END_EVERY == _END_EVERY - 1:
        return END_ID
    if adapter is not None and position % 8 == 0:
        return ord("a")
    return ord(f"{position // 8:07d} "[position % 8])


def _choose(running: Running, logits: reference_sampler.Logits) -> int:
    """The next token; ``running`` keeps where its grammar and mirostat stand then."""
    masked = logits.copy()
    if running.sequence.sampling.ignore_eos:
        masked[list(FakeTokenizer.end_ids)] = -np.inf
    constraint = running.sequence.constraint
    if constraint is None:
        return _sample(running, masked)
    mask = constraint.allowed()
    token_id = _sample(running, masked if mask is None else np.where(mask, masked, -np.inf))
    constraint.accept(token_id)
    return token_id


def _sample(running: Running, logits: reference_sampler.Logits) -> int:
    sampling = running.sequence.sampling
    breakers = running.breakers
    if not mirostat.is_used(sampling):
        return reference_sampler.sample(logits, running.tokens, sampling, breakers)
    assert running.mirostat_mu is not None
    biased = reference_sampler.disfavour(logits, running.tokens, sampling, breakers)
    token_id, running.mirostat_mu = mirostat.sample(
        biased, sampling, len(running.tokens), running.mirostat_mu
    )
    return token_id


def _to_token(running: Running, token_id: int, logits: reference_sampler.Logits) -> Token:
    is_end = token_id in FakeTokenizer.end_ids
    finish = FinishReason.STOP if is_end else None
    if finish is None and running.num_left == 0:
        finish = FinishReason.LENGTH
    sampling, sequence_id = running.sequence.sampling, running.sequence.sequence_id
    mu = running.mirostat_mu if mirostat.is_used(sampling) else None
    if sampling.num_logprobs is None:
        return Token(sequence_id, token_id, finish, is_end, mirostat_mu=mu)
    logprob, top = _logprob(logits, token_id, sampling.num_logprobs)
    return Token(sequence_id, token_id, finish, is_end, logprob, top, mu)


def _logprob(
    logits: reference_sampler.Logits, token_id: int, num_top: int
) -> tuple[float, TopLogprobs]:
    """A token's log-probability and those of the ``num_top`` likeliest at its place."""
    logprobs = reference_sampler.log_softmax(logits)
    return float(logprobs[token_id]), reference_sampler.top_logprobs(logprobs, num_top)
