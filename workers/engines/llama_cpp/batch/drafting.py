"""Drafts the next tokens of a sequence; the model checks them in one step.

A draft is accepted only if the sampler draws the same token, so drafting does not change the text;
an accepted draft saves a step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from workers.engines.llama_cpp.batch.decode_batch import Batch, IntArray
from workers.engines.llama_cpp.batch.running import Running
from workers.engines.llama_cpp.binding import Pointer, lib, llama_log
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.prefixes import num_common
from workers.engines.llama_cpp.sampling.scoring import logits_of
from workers.engines.shared.prompt_lookup import PromptLookup

_MAX_MISSES = 4  # rounds without a hit, after which a sequence is drafted less often
_RETRY_EVERY = 8


class Drafter(Protocol):
    """Drafts tokens for the sequences that are about to decode."""

    def propose(self, runs: list[Running]) -> dict[int, IntArray]:
        """Drafts by sequence id, each int32 (num_drafts,); sequences without any may be missing."""
        ...

    def forget(self, run: Running) -> None:
        """Free what belongs to a sequence that has ended."""
        ...

    def close(self) -> None: ...


class TextDrafter:
    """Prompt lookup: drafts from each sequence's own text."""

    def __init__(self, num_drafts: int) -> None:
        self._num_drafts = num_drafts
        self._lookups: dict[int, PromptLookup] = {}

    def propose(self, runs: list[Running]) -> dict[int, IntArray]:
        found = {}
        for run in filter(is_worth_drafting, runs):
            sequence_id = run.sequence.sequence_id
            lookup = self._lookups.setdefault(sequence_id, PromptLookup())
            count = min(self._num_drafts, run.num_remaining - 1)
            if count > 0 and (draft := lookup.draft(run.tokens_so_far, count)):
                found[sequence_id] = np.asarray(draft, np.int32)
        return found

    def forget(self, run: Running) -> None:
        self._lookups.pop(run.sequence.sequence_id, None)

    def close(self) -> None:
        pass


def is_worth_drafting(run: Running) -> bool:
    """Whether recent drafts for this sequence had hits; also True now and then, to try again."""
    misses = run.num_rounds_without_hit
    return misses < _MAX_MISSES or run.num_generated % _RETRY_EVERY == 0


class DraftModel:
    """A smaller model with the same vocabulary, which continues each text greedily."""

    def __init__(self, model: Pointer, memory: KvMemory, num_drafts: int) -> None:
        self._model = model
        self._context = memory.context
        self._memory = memory
        self._vocab_size: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._num_drafts = num_drafts
        self._batch = Batch(lib.llama_n_batch(memory.context))
        self._seqs: dict[int, tuple[int, IntArray]] = {}  # by sequence id: seq_id, its tokens

    def propose(self, runs: list[Running]) -> dict[int, IntArray]:
        wanted = [run for run in runs if run.num_remaining > 1 and is_worth_drafting(run)]
        texts = {run.sequence.sequence_id: run.tokens_so_far for run in wanted}
        drafts: dict[int, list[int]] = {sequence_id: [] for sequence_id in texts}
        limits = {run.sequence.sequence_id: run.num_remaining - 1 for run in wanted}
        for _ in range(self._num_drafts):
            texts = {i: text for i, text in texts.items() if len(drafts[i]) < limits[i]}
            for sequence_id, token in self._next_tokens(texts).items():
                drafts[sequence_id].append(token)
                texts[sequence_id] = np.append(texts[sequence_id], np.int32(token))
            texts = {i: text for i, text in texts.items() if drafts[i]}
        return {i: np.asarray(found, np.int32) for i, found in drafts.items() if found}

    def forget(self, run: Running) -> None:
        seq_id, _ = self._seqs.pop(run.sequence.sequence_id, (-1, None))
        if seq_id >= 0:
            self._memory.release(seq_id)

    def close(self) -> None:
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def _next_tokens(self, texts: dict[int, IntArray]) -> dict[int, int]:
        """The likeliest next token of each text, if the uncomputed rest fits into the batch."""
        self._batch.clear()
        rows: dict[int, int] = {}
        for sequence_id, text in texts.items():
            seq_id, num_cached = self._synchronised(sequence_id, text)
            rest = text[num_cached : num_cached + self._room]
            is_whole = num_cached + len(rest) == len(text)
            if len(rest) == 0 or len(rest) > self._memory.num_free:
                continue
            first = self._batch.add(rest, num_cached, seq_id, num_outputs=int(is_whole))
            self._memory.note_decoded(seq_id, len(rest))
            self._seqs[sequence_id] = seq_id, text[: num_cached + len(rest)].copy()
            if is_whole:
                rows[sequence_id] = first + len(rest) - 1
        if self._batch.num_tokens == 0:
            return {}
        llama_log.clear()
        status = lib.llama_decode(self._context, self._batch.native)
        lib.llama_synchronize(self._context)
        llama_log.check_device()
        if status != 0:
            self._reset()
            return {}
        return {i: int(self._logits(row).argmax()) for i, row in rows.items()}

    @property
    def _room(self) -> int:
        return self._batch.capacity - self._batch.num_tokens

    def _logits(self, row: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return logits_of(self._context, row, self._vocab_size)

    def _synchronised(self, sequence_id: int, text: IntArray) -> tuple[int, int]:
        """Cut a sequence to its common prefix with ``text``, without the last token of ``text``.

        Returns its seq_id and the length of the prefix.
        """
        seq_id, cached = self._seqs.get(sequence_id, (-1, text[:0]))
        if seq_id < 0:
            seq_id = self._memory.open_seq()
        num_cached = min(num_common(cached, text), len(text) - 1)
        self._memory.truncate(seq_id, num_cached)
        self._seqs[sequence_id] = seq_id, cached[:num_cached]
        return seq_id, num_cached

    def _reset(self) -> None:
        """Release all sequences: after a failed decode pass their contents are unknown."""
        for seq_id, _ in self._seqs.values():
            self._memory.release(seq_id)
        self._seqs.clear()
