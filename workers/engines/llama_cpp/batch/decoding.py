"""Runs decode passes and turns their results into events: progress, tokens, failures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workers.engines.base import (
    Prefill,
    PromptLogprobs,
    SequenceFailure,
    StepEvent,
    Token,
)
from workers.engines.failures import failure_of
from workers.engines.llama_cpp.batch.decode_batch import Batch
from workers.engines.llama_cpp.batch.prefill_budget import Part
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.batch.step_tuning import Padding
from workers.engines.llama_cpp.binding import lib, llama_log
from workers.engines.llama_cpp.load.loaded_model import LoadedModel
from workers.engines.llama_cpp.sampling.scoring import logits_of, score

_STOPPED = 2  # llama_decode's return value after an abort
_PADDING = np.zeros(1, np.int32)  # any token will do

OnEnd = Callable[[Running, bool], None]
"""``on_end(run, is_kept)``: the sequence has ended; ``is_kept``: its KV state can be reused."""


class Decoder:
    """Runs a decode pass for parts of sequences. ``was_stopped``: the last pass was aborted."""

    def __init__(self, loaded: LoadedModel, batch: Batch, on_end: OnEnd) -> None:
        self._adapters = loaded.adapters
        self._abort = loaded.tuning.abort
        self._padding = loaded.tuning.padding
        self._end_ids = loaded.tokenizer.end_ids
        self._vocab_size = loaded.info.vocab_size
        self._batch = batch
        self._on_end = on_end
        self.was_stopped = False
        self._memory = loaded.memory
        if self._abort is not None:
            self._abort.attach(self._memory.context)

    @property
    def can_stop(self) -> bool:
        """Whether the next decode pass may be aborted, if it is prefill only.

        Never two in a row: otherwise clients that disconnect could block the prefill of others.
        """
        return self._abort is not None and not self.was_stopped

    def decode(self, parts: list[Part]) -> list[StepEvent]:
        """Run one decode pass for ``parts``, all of one adapter; returns the events of all."""
        self._adapters.apply(self._memory.context, parts[0].run.adapter)
        self._fill_batch(parts)
        llama_log.clear()
        status = self._run_pass(parts)
        if status == 0:
            lib.llama_synchronize(self._memory.context)
        llama_log.check_device()
        for part in parts:
            if part.num_padding:
                run = part.run
                self._memory.remove_uncounted(run.seq_id, run.num_in_cache + part.num_rows)
        if status == 0:
            return [event for part in parts for event in self._collect(part)]
        if status == _STOPPED:
            for part in parts:
                self._memory.truncate(part.run.seq_id, part.run.num_in_cache)
            return []
        if len(parts) == 1:
            return [self._fail(parts[0].run)]
        return [event for part in parts for event in self._retry(part)]

    def _run_pass(self, parts: list[Part]) -> int:
        """``llama_decode``'s return value. ``interrupt`` can abort a pass that is prefill only."""
        abort, native = self._abort, self._batch.native
        is_decoding = any(part.run.num_uncomputed == 1 for part in parts)
        if abort is None or is_decoding or not self.can_stop:
            status: int = lib.llama_decode(self._memory.context, native)
        else:
            with abort.watching([part.run.sequence.sequence_id for part in parts]):
                status = lib.llama_decode(self._memory.context, native)
        self.was_stopped = status == _STOPPED
        return status

    def _retry(self, part: Part) -> list[StepEvent]:
        """Decode one part of a failed batch alone, so that only the faulty sequence fails."""
        # A failed pass leaves the tokens that it has processed in the cache: remove them first.
        if not self._memory.truncate(part.run.seq_id, part.run.num_in_cache):
            return [self._fail(part.run)]
        return self.decode([part])

    def _fill_batch(self, parts: list[Part]) -> None:
        self._batch.clear()
        if self._padding is not None and any(part.num_tokens > 1 for part in parts):
            self._pad(parts, self._padding)
        if self._memory.is_per_slot:  # llama.cpp computes successive slots together
            parts = sorted(parts, key=lambda part: part.run.seq_id)
        for part in parts:
            self._add_part(part)

    def _pad(self, parts: list[Part], padding: Padding) -> None:
        """Pad short parts to whole tiles where that is faster."""
        largest = self._memory.num_paddable([part.run.seq_id for part in parts])
        room = self._batch.capacity - sum(part.num_rows for part in parts)
        for part in parts:
            missing = padding.num_missing(part.num_rows, part.run.num_in_cache)
            if part.drafts is None and part.num_rows + missing <= largest and missing <= room:
                part.num_padding = missing
                room -= missing

    def _add_part(self, part: Part) -> None:
        batch, run, first = self._batch, part.run, part.run.num_in_cache
        if part.num_rows == 1 and part.is_last:
            part.first_row = batch.add_token(int(run.tokens[first]), first, run.seq_id)
            return
        tokens = run.tokens[first : first + part.num_tokens]
        num_outputs = part.num_tokens if run.is_scoring else int(part.is_last)
        if part.drafts is not None:
            tokens = np.concatenate([tokens, part.drafts])
            num_outputs += len(part.drafts)
        part.first_row = batch.add(tokens, first, run.seq_id, num_outputs=num_outputs)
        if part.num_padding:
            first += part.num_rows
            batch.add(_PADDING.repeat(part.num_padding), first, run.seq_id, num_outputs=0)

    def _collect(self, part: Part) -> list[StepEvent]:
        """The events of one part. An exception ends its sequence only."""
        run = part.run
        self._memory.note_decoded(run.seq_id, part.num_rows)
        events: list[StepEvent] = []
        try:
            self._add_events(part, events)
        except Exception as error:
            self._on_end(run, False)
            return [*events, failure_of(run.sequence.sequence_id, error)]
        if part.drafts is not None:
            self._memory.truncate(run.seq_id, run.num_in_cache)
        if events and isinstance(last := events[-1], Token) and last.finish is not None:
            self._on_end(run, True)
        return events

    def _add_events(self, part: Part, events: list[StepEvent]) -> None:
        """Add the events of one part to ``events``."""
        run = part.run
        is_last = part.is_last
        if run.is_scoring:
            self._score_prompt(part)
        run.num_in_cache += part.num_tokens
        if run.num_generated == 0:
            sequence_id = run.sequence.sequence_id
            events.append(Prefill(sequence_id, run.num_in_cache, run.num_prompt, run.num_cached))
            if is_last and run.is_scoring:
                events.append(PromptLogprobs(sequence_id, tuple(run.scores)))
        if is_last:
            self._add_tokens(part, events)

    def _add_tokens(self, part: Part, events: list[StepEvent]) -> None:
        """Add the next token, and one more for each draft that was right."""
        run, row = part.run, part.first_row + part.num_tokens - 1
        drafts = [] if part.drafts is None else part.drafts.tolist()
        token = self._next_token(run, row)
        events.append(token)
        num_right = 0
        for draft in drafts:
            if token.finish is not None or token.token_id != draft:
                break
            num_right += 1
            run.num_in_cache += 1
            token = self._next_token(run, row + num_right)
            events.append(token)
        if drafts:
            run.num_rounds_without_hit = 0 if num_right else run.num_rounds_without_hit + 1

    def _next_token(self, run: Running, row: int) -> Token:
        token = run.sampler.sample(self._memory.context, row, run.num_tokens)
        run.append(token)
        is_end = token in self._end_ids
        num_top = run.sequence.sampling.num_logprobs
        logprob, top = (None, ()) if num_top is None else self._score(row, token, num_top)
        finish = run.finish_after(is_end=is_end)
        sequence_id = run.sequence.sequence_id
        return Token(sequence_id, token, finish, is_end, logprob, top, run.sampler.mu)

    def _score_prompt(self, part: Part) -> None:
        """Note the log-probability of the token after each token of this part."""
        run = part.run
        num_top = run.sequence.num_prompt_logprobs
        assert num_top is not None
        first = run.num_in_cache
        for i in range(min(part.num_tokens, run.num_prompt - 1 - first)):
            token = int(run.tokens[first + i + 1])
            run.scores.append(self._score(part.first_row + i, token, num_top))

    def _score(
        self, row: int, token: int, num_top: int
    ) -> tuple[float, tuple[tuple[int, float], ...]]:
        return score(logits_of(self._memory.context, row, self._vocab_size), token, num_top)

    def _fail(self, run: Running) -> SequenceFailure:
        self._on_end(run, False)
        reason = llama_log.warnings() or "llama.cpp gave no reason"
        return SequenceFailure(run.sequence.sequence_id, f"decoding failed: {reason}")
