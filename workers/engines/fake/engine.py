"""Continuous batching without a model; the package describes it."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from jobs.contract.errors import InvalidRequestError
from jobs.contract.sampling import Sampling
from workers.engines import mirostat
from workers.engines.base import (
    EngineOptions,
    ModelInfo,
    OnProgress,
    Pooling,
    Prefill,
    Sequence,
    StepEvent,
)
from workers.engines.dry import BreakerFinder
from workers.engines.failures import failure_of
from workers.engines.fake.drawing import Running, draw, prompt_logprobs
from workers.engines.fake.faults import Faults, Place
from workers.engines.fake.prefixes import NUM_KEPT, KeptPrefixes
from workers.engines.fake.tokenizer import VOCAB_SIZE, FakeTokenizer

_PREFILL_CHUNK = 512


class FakeEngine:
    """Implements ``workers.engines.base.Engine``; ``num_kept`` ended sequences count as cached."""

    def __init__(
        self,
        info: ModelInfo,
        step_s: float,
        adapter: str | None = None,
        num_kept: int = NUM_KEPT,
    ) -> None:
        self.info = info
        self.tokenizer = FakeTokenizer()
        self._breakers = BreakerFinder(self.tokenizer)
        self._step_s = step_s
        self._adapter = adapter
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Running] = {}
        self._prefixes = KeptPrefixes(num_kept)
        self._is_stalled = False

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def check(self, sampling: Sampling) -> None:
        for token_id in sampling.logit_bias:
            if not 0 <= token_id < VOCAB_SIZE:
                raise InvalidRequestError(
                    f"token {token_id} is not in the vocabulary of {VOCAB_SIZE}", "logit_bias"
                )

    def submit(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)
        faults = Faults.of(sequence.prompt)
        if faults.has_crash:
            os.abort()
        self._is_stalled = self._is_stalled or faults.has_stall

    def abort(self, sequence_id: int) -> None:
        self._end(sequence_id)
        self._waiting = deque(s for s in self._waiting if s.sequence_id != sequence_id)

    def interrupt(self, sequence_id: int) -> None:
        """See ``base.Engine``. Does nothing: a step is short."""

    def step(self) -> list[StepEvent]:
        if not self.has_work:
            return []
        decoding = [running for running in self._running.values() if running.is_prefilled]
        if self._is_stalled or any(r.faults.stalls_at == r.num_generated + 1 for r in decoding):
            _hang()
        if self._step_s:
            time.sleep(self._step_s)
        for running in decoding:
            if running.faults.raises:
                running.faults.check(Place.STEP, running.num_generated)
                running.faults.check(Place.DEVICE, running.num_generated)
        self._admit()
        events: list[StepEvent] = [self._decode(running) for running in decoding]
        return [*events, *self._prefill()]

    def embed(
        self,
        inputs: list[list[int]],
        pooling: Pooling | None,
        on_piece: Callable[[], None] | None = None,
    ) -> list[list[float]]:
        """See ``base.Engine``; vectors of 8 numbers that depend only on the tokens."""
        vectors = [np.random.default_rng(ids).standard_normal(8) for ids in inputs]
        return [(vector / np.linalg.norm(vector)).tolist() for vector in vectors]

    cache_bytes = 0
    prompt_cache_bytes = 0
    device_bytes = 0

    def limit_cache(self, num_bytes: int) -> None:
        """See ``base.Engine``. Does nothing: no memory is kept."""

    def close(self) -> None:
        self._running.clear()
        self._waiting.clear()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.info.num_slots:
            sequence = self._waiting.popleft()
            self._running[sequence.sequence_id] = self._start(sequence)

    def _start(self, sequence: Sequence) -> Running:
        room = self.info.context_length - len(sequence.prompt)
        mu = sequence.mirostat_mu
        return Running(
            sequence,
            adapter=sequence.adapter or self._adapter,
            num_left=min(sequence.max_tokens, room),
            mirostat_mu=mirostat.first_mu(sequence.sampling) if mu is None else mu,
            faults=Faults.of(sequence.prompt),
            breakers=self._breakers.of(sequence.sampling),
        )

    def _prefill(self) -> Iterator[StepEvent]:
        """Read one chunk of prompt tokens, in order of admission."""
        budget = _PREFILL_CHUNK
        for running in self._running.values():
            if running.is_prefilled or budget == 0:
                continue
            if running.num_cached is None:
                running.num_prefilled = running.num_cached = self._num_cached(running)
            num = min(budget, running.num_prompt - running.num_prefilled)
            running.num_prefilled += num
            budget -= num
            sequence_id, num_done = running.sequence.sequence_id, running.num_prefilled
            yield Prefill(sequence_id, num_done, running.num_prompt, running.num_cached)
            num_top = running.sequence.num_prompt_logprobs
            if num_done == running.num_prompt and num_top is not None:
                yield prompt_logprobs(running, num_top)

    def _num_cached(self, running: Running) -> int:
        if running.sequence.num_prompt_logprobs is not None:
            return 0  # prompt log-probabilities need every token
        others = ((other.adapter, other.in_cache) for other in self._running.values())
        prompt = list(running.sequence.prompt)
        return self._prefixes.num_cached(prompt, running.adapter, others)

    def _decode(self, running: Running) -> StepEvent:
        sequence_id = running.sequence.sequence_id
        try:
            token = draw(running, self.tokenizer)
        except Exception as error:
            del self._running[sequence_id]
            return failure_of(sequence_id, error)
        if token.finish is not None:
            self._end(sequence_id)
        return token

    def _end(self, sequence_id: int) -> None:
        running = self._running.pop(sequence_id, None)
        if running is not None:
            self._prefixes.put(running.in_cache, running.adapter)


def _hang() -> NoReturn:
    while True:
        time.sleep(1.0)


def open_fake(path: Path, options: EngineOptions, on_progress: OnProgress) -> FakeEngine:
    """A fake engine with the device and the step time given in the name."""
    pace = re.search(r"-(\d+)ms$", path.name)
    on_progress(1.0)
    info = ModelInfo(
        backend="fake",
        context_length=options.context_length or 8192,
        num_slots=options.num_slots or 8,
        vocab_size=VOCAB_SIZE,
        architecture="fake",
        is_on_gpu="-gpu" in path.name,
    )
    num_kept = 0 if options.prompt_cache_bytes == 0 else NUM_KEPT
    return FakeEngine(info, int(pace[1]) / 1000 if pace else 0.0, options.adapter, num_kept)
