"""An engine without a model: deterministic, at a pace of choice, under the same contract.

Its likeliest text counts: the token at position ``i`` of a sequence is character ``i % 8`` of
``"%07d " % (i // 8)``, so that a lost, doubled or foreign token shows in the text. Each 512th
position ends the generation. With an adapter, whatever its contents, the numbers begin with ``a``.
The model name sets the pace: ``fake``, ``fake-20ms`` (per step).
For tests of faults, a prompt that holds ``<<stall>>`` stops the engine for ever, and one that holds
``<<crash>>`` kills the process.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.errors import InvalidRequestError
from jobs.sampling import Sampling
from workers.engines import mirostat, numpy_sampler
from workers.engines.base import (
    EngineOptions,
    FimTokens,
    FinishReason,
    ModelInfo,
    OnProgress,
    Pooling,
    Prefill,
    PromptLogprobs,
    Sequence,
    StepEvent,
    Token,
)

_END_ID = 256
_SPECIALS = {
    "<|endoftext|>": 256,
    "<|im_start|>": 257,
    "<|im_end|>": 258,
    "<|fim_prefix|>": 259,
    "<|fim_suffix|>": 260,
    "<|fim_middle|>": 261,
}
_SPECIAL_TEXTS = {token_id: text for text, token_id in _SPECIALS.items()}
_VOCAB_SIZE = 272
_END_EVERY = 512
_PREFILL_CHUNK = 512
_PREFERENCE = 6.0  # logit of the counting text over the noise
_SPECIAL_PATTERN = re.compile("(" + "|".join(map(re.escape, _SPECIALS)) + ")")


class FakeTokenizer:
    """One token per byte, and six control tokens."""

    vocab_size = _VOCAB_SIZE
    end_ids = frozenset({_END_ID, _SPECIALS["<|im_end|>"]})
    bos_token = ""
    eos_token = "<|endoftext|>"
    chat_template: str | None = None
    fim_tokens: FimTokens | None = FimTokens(259, 260, 261)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if not parse_special:
            return list(text.encode())
        ids: list[int] = []
        for part in _SPECIAL_PATTERN.split(text):
            ids += [_SPECIALS[part]] if part in _SPECIALS else part.encode()
        return ids

    def piece(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def control_text(self, token_id: int) -> str:
        return _SPECIAL_TEXTS.get(token_id, "")


@dataclass(slots=True)
class _Running:
    sequence: Sequence
    tokens: list[int]
    num_left: int
    is_adapted: bool
    mirostat_mu: float | None
    num_prefilled: int = 0

    @property
    def is_prefilled(self) -> bool:
        return self.num_prefilled == len(self.sequence.prompt)


class FakeEngine:
    """Holds no model; see the module."""

    def __init__(self, info: ModelInfo, step_s: float, adapter: str | None = None) -> None:
        self.info = info
        self.tokenizer = FakeTokenizer()
        self._step_s = step_s
        self._adapter = adapter
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, _Running] = {}
        self._is_stalled = False

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def check(self, sampling: Sampling) -> None:
        for token_id in sampling.logit_bias:
            if not 0 <= token_id < _VOCAB_SIZE:
                raise InvalidRequestError(
                    f"token {token_id} is not in the vocabulary of {_VOCAB_SIZE}", "logit_bias"
                )

    def submit(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)
        prompt = bytes(token_id for token_id in sequence.prompt if token_id < 256)
        if b"<<crash>>" in prompt:
            os.abort()
        self._is_stalled = self._is_stalled or b"<<stall>>" in prompt

    def abort(self, sequence_id: int) -> None:
        self._running.pop(sequence_id, None)
        self._waiting = deque(s for s in self._waiting if s.sequence_id != sequence_id)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``; a step is short anyway."""

    def step(self) -> list[StepEvent]:
        if not self.has_work:
            return []
        while self._is_stalled:
            time.sleep(1.0)
        if self._step_s:
            time.sleep(self._step_s)
        decoding = [running for running in self._running.values() if running.is_prefilled]
        self._admit()
        events: list[StepEvent] = [self._decode(running) for running in decoding]
        events += self._prefill()
        return events

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """Eight numbers that depend on the tokens alone, of length 1."""
        vectors = [np.random.default_rng(ids).standard_normal(8) for ids in inputs]
        return [(vector / np.linalg.norm(vector)).tolist() for vector in vectors]

    cache_bytes = 0

    def limit_cache(self, num_bytes: int) -> None:
        """Nothing is kept, so nothing is above any limit."""

    def close(self) -> None:
        self._running.clear()
        self._waiting.clear()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.info.num_slots:
            sequence = self._waiting.popleft()
            self._running[sequence.sequence_id] = self._start(sequence)

    def _start(self, sequence: Sequence) -> _Running:
        room = self.info.context_length - len(sequence.prompt)
        mu = sequence.mirostat_mu
        return _Running(
            sequence,
            list(sequence.prompt),
            num_left=min(sequence.max_tokens, room),
            is_adapted=(sequence.adapter or self._adapter) is not None,
            mirostat_mu=mirostat.first_mu(sequence.sampling) if mu is None else mu,
        )

    def _prefill(self) -> list[StepEvent]:
        """Up to a chunk of prompt tokens, in order of admission."""
        events: list[StepEvent] = []
        budget = _PREFILL_CHUNK
        for running in self._running.values():
            if running.is_prefilled or budget == 0:
                continue
            num_total = len(running.sequence.prompt)
            num = min(budget, num_total - running.num_prefilled)
            running.num_prefilled += num
            budget -= num
            events.append(Prefill(running.sequence.sequence_id, running.num_prefilled, num_total))
            num_top = running.sequence.num_prompt_logprobs
            if running.num_prefilled == num_total and num_top is not None:
                events.append(_prompt_logprobs(running, num_top))
        return events

    def _decode(self, running: _Running) -> Token:
        logits = _logits(running.tokens, running.is_adapted)
        masked = logits.copy()
        if running.sequence.sampling.ignore_eos:
            masked[list(FakeTokenizer.end_ids)] = -np.inf
        token_id = _sample(running, masked)
        running.tokens.append(token_id)
        running.num_left -= 1
        return self._to_token(running, token_id, logits)

    def _to_token(self, running: _Running, token_id: int, logits: numpy_sampler.Logits) -> Token:
        is_end = token_id in FakeTokenizer.end_ids
        finish = FinishReason.STOP if is_end else None
        if finish is None and running.num_left == 0:
            finish = FinishReason.LENGTH
        sequence_id = running.sequence.sequence_id
        if finish is not None:
            del self._running[sequence_id]
        sampling = running.sequence.sampling
        mu = running.mirostat_mu if mirostat.is_used(sampling) else None
        if sampling.num_logprobs is None:
            return Token(sequence_id, token_id, finish, is_end, mirostat_mu=mu)
        logprob, top = _logprob(logits, token_id, sampling.num_logprobs)
        return Token(sequence_id, token_id, finish, is_end, logprob, top, mu)


def open_fake(path: Path, options: EngineOptions, on_progress: OnProgress) -> FakeEngine:
    """The fake engine at the pace that the name says."""
    pace = re.search(r"-(\d+)ms$", path.name)
    on_progress(1.0)
    info = ModelInfo(
        backend="fake",
        context_length=options.context_length or 8192,
        num_slots=options.num_slots or 8,
        vocab_size=_VOCAB_SIZE,
        architecture="fake",
    )
    return FakeEngine(info, int(pace[1]) / 1000 if pace else 0.0, options.adapter)


def _sample(running: _Running, logits: numpy_sampler.Logits) -> int:
    """The next token; ``running`` keeps where its grammar and mirostat stand then."""
    constraint = running.sequence.constraint
    if constraint is None:
        return _draw(running, logits)
    mask = constraint.allowed()
    token_id = _draw(running, logits if mask is None else np.where(mask, logits, -np.inf))
    constraint.accept(token_id)
    return token_id


def _draw(running: _Running, logits: numpy_sampler.Logits) -> int:
    sampling = running.sequence.sampling
    if not mirostat.is_used(sampling):
        return numpy_sampler.sample(logits, running.tokens, sampling)
    assert running.mirostat_mu is not None
    biased = numpy_sampler.add_bias(logits, sampling.logit_bias)
    penalised = numpy_sampler.penalise(biased, running.tokens, sampling)
    token_id, running.mirostat_mu = mirostat.sample(
        penalised, sampling, len(running.tokens), running.mirostat_mu
    )
    return token_id


_TopLogprobs = tuple[tuple[int, float], ...]


def _logprob(
    logits: numpy_sampler.Logits, token_id: int, num_top: int
) -> tuple[float, _TopLogprobs]:
    """A token's log-probability and those of the ``num_top`` likeliest at its place."""
    logprobs = numpy_sampler.log_softmax(logits)
    return float(logprobs[token_id]), numpy_sampler.top_logprobs(logprobs, num_top)


def _prompt_logprobs(running: _Running, num_top: int) -> PromptLogprobs:
    prompt = list(running.sequence.prompt)
    entries = (
        _logprob(_logits(prompt[:place], running.is_adapted), prompt[place], num_top)
        for place in range(1, len(prompt))
    )
    return PromptLogprobs(running.sequence.sequence_id, tuple(entries))


def _logits(tokens: list[int], is_adapted: bool) -> numpy_sampler.Logits:
    """Noise that depends on position and last token, and a liking for the counting text."""
    position = len(tokens)
    random = np.random.default_rng([position, tokens[-1]])
    logits = random.standard_normal(_VOCAB_SIZE)
    logits[:32] -= 20.0  # neither control characters
    logits[127:256] -= 20.0  # nor broken ones by chance
    logits[256:] -= 20.0
    is_end = position % _END_EVERY == _END_EVERY - 1
    logits[_scripted(position, is_adapted)] += _PREFERENCE + 20.0 * is_end
    return logits


def _scripted(position: int, is_adapted: bool) -> int:
    if position % _END_EVERY == _END_EVERY - 1:
        return _END_ID
    if is_adapted and position % 8 == 0:
        return ord("a")
    return ord(f"{position // 8:07d} "[position % 8])
