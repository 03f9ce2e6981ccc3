"""The batch of decoding sequences, one token each per step.

The next step is scheduled on the device before the tokens of the current one are read, so that
the device does not wait for Python. mlx_lm's ``BatchGenerator`` does the same. It is not used
because its prompt scheduling, sampling and row bookkeeping would all have to be replaced; only the
batch protocol of its caches is used (``library.py``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import mlx.core as mx

from workers.engines.base import SequenceFailure, Token
from workers.engines.mlx import device, library
from workers.engines.mlx.batch.row import DrawnTokens, Row, is_last
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match, PromptStore
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.mlx.memory import Memory
from workers.engines.mlx.sampling.sampler import BatchSampler, Draw
from workers.engines.shared.token_key import num_common, to_key

# MLX keeps freed buffers for reuse, but sequences grow and most never fit again.
_STEPS_BETWEEN_CLEARS = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A step on the device whose tokens have not been read; ``rows`` are the rows of the draw."""

    rows: list[Row]
    draw: Draw


class RunningBatch:
    """Decodes all its rows together; rows join and leave between steps.

    A single row keeps the cache of its prefill, which is merged when a second row joins; so models
    whose caches cannot be merged work with one row. The state of a removed row goes to ``store``.
    """

    def __init__(
        self,
        model: Model,
        end_ids: frozenset[int],
        store: PromptStore,
        memory: Memory | None = None,
    ) -> None:
        self._model = model
        self._memory = memory or Memory()
        self._end_ids = end_ids
        self._store = store
        self._rows: list[Row] = []
        self._cache: PromptCache = []
        self._is_merged = False
        self._sampler: BatchSampler | None = None
        self._scheduled: Scheduled | None = None
        self._num_steps = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[Row]:
        return self._rows

    def join(self, row: Row, cache: PromptCache) -> None:
        """Add a row; ``cache`` holds all its tokens but the last. If it raises, nothing changes."""
        if not row.has_checkpoint and not kv.can_trim(cache):
            # If it can be trimmed, ``find`` gets the prompt from the running row.
            self._store.put(to_key(row.tokens[:-1]), kv.prefix(cache, row.position))
        self._join_cache(cache)
        self._rows = [*self._rows, row]
        self._sampler = None

    def remove(self, sequence_id: int) -> None:
        """Remove a row at once; its scheduled token is discarded when it is read."""
        self._drop([row for row in self._rows if row.sequence.sequence_id == sequence_id])

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """The longest common prefix of ``key`` and the prompt of a running row."""
        commons = [num_common(row.prompt_key, key) for row in self._rows]
        if not commons or not kv.can_trim(self._cache):
            return None
        index = max(range(len(commons)), key=commons.__getitem__)
        # The last token of that prompt may not be in the cache yet.
        num = min(commons[index], max_tokens, len(self._rows[index].sequence.prompt) - 1)
        return Match(num, lambda: kv.snapshot(self._row_cache(index), num))

    def _row_cache(self, index: int) -> PromptCache:
        return kv.row(self._cache, index) if self._is_merged else self._cache

    def _drop(self, rows: list[Row]) -> None:
        """Remove rows, all at once because each change of the batch copies the remaining rows."""
        old = self._rows
        kept = [i for i, row in enumerate(old) if row not in rows]
        if len(kept) < len(old):
            self._rows = [old[i] for i in kept]  # first: then kept states may have their memory
        for i in set(range(len(old))).difference(kept):
            self._keep(old[i], i)
        if not kept:
            self.clear()
        elif len(kept) < len(old):
            library.keep_rows(self._cache, kept)
            self._sampler = None

    def _keep(self, row: Row, index: int) -> None:
        """Keep the state of a row that leaves; without it the next prompt only takes longer."""
        key = to_key(row.tokens[: row.position])
        try:
            if not self._store.covers(key):
                self._store.put(key, self._row_cache(index))
        except Exception as error:  # the row has ended well, and its neighbours go on
            device.raise_if_lost(error)
            log.exception("a state cannot be kept", extra={"sequence": row.sequence.sequence_id})

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self._rows, self._cache, self._is_merged = [], [], False
        self._sampler, self._scheduled = None, None
        self._memory.trim_pool()

    def start(self) -> None:
        """Schedule a step if there are rows and none is scheduled."""
        if self._scheduled is None:
            self._schedule()

    def step(self) -> list[Token | SequenceFailure]:
        """Schedule the next token of every row, and return the tokens scheduled before.

        None is scheduled if that would wait for the whole next pass: then ``start`` is called.
        """
        previous = self._scheduled
        if previous is None:
            self._schedule()
            return []
        if previous.draw.has_waited:
            return self.read_scheduled()
        if _has_last_token(previous):
            events = self._report(previous)
            self._schedule()
            return events
        if any(row.needs_last_token for row in self._rows):
            return self._report_during_pass(previous)
        self._schedule()
        return self._report(previous)

    def _report_during_pass(self, previous: Scheduled) -> list[Token | SequenceFailure]:
        """A step of rows whose next draw depends on the tokens before it, as a grammar's masks do.

        The device computes the next pass while those are read and the masks are made.
        """
        inputs, logits = self._forward()
        mx.async_eval(logits)
        events, ended = self._read(previous)
        self._draw(inputs, logits)
        self._drop(ended)
        return events

    def read_scheduled(self) -> list[Token | SequenceFailure]:
        """Return the tokens scheduled before, and schedule none: then rows may be taken out."""
        previous, self._scheduled = self._scheduled, None
        return [] if previous is None else self._report(previous)

    def _schedule(self) -> None:
        if not self._rows:
            self._scheduled = None
            return
        self._draw(*self._forward())

    def _forward(self) -> tuple[mx.array, mx.array]:
        """The next pass, lazy: its input tokens, (rows,), and its logits, (rows, vocab)."""
        inputs = self._inputs()
        return inputs, self._model(inputs[:, None], cache=self._cache)[:, -1, :]

    def _draw(self, inputs: mx.array, logits: mx.array) -> None:
        """Schedule the draw of a pass, and note both."""
        if self._sampler is None:
            self._sampler = BatchSampler(self._rows, self._end_ids)
        draw = self._sampler.draw(logits, inputs)
        mx.async_eval(draw.arrays())
        for row in self._rows:
            row.position += 1
        self._scheduled = Scheduled(self._rows, draw)
        self._clear_buffers()

    def _inputs(self) -> mx.array:
        """The input token of each row, (rows,): known to Python, or scheduled and unread."""
        scheduled = self._scheduled
        if scheduled is not None and scheduled.rows is self._rows:
            return scheduled.draw.tokens
        known = [row.tokens[row.position] for row in self._rows if row.position < len(row.tokens)]
        tokens = mx.array(known, dtype=mx.uint32)
        if scheduled is not None:
            tokens = mx.concatenate([tokens, scheduled.draw.tokens.astype(mx.uint32)])
        return tokens[mx.array(self._input_indices(len(known)))]

    def _input_indices(self, num_known: int) -> list[int]:
        """Index of each row's input in the known tokens followed by the scheduled ones."""
        old_rows = [] if self._scheduled is None else self._scheduled.rows
        unread = {row: num_known + i for i, row in enumerate(old_rows)}
        known = iter(range(num_known))
        return [
            next(known) if row.position < len(row.tokens) else unread[row] for row in self._rows
        ]

    def _report(self, scheduled: Scheduled) -> list[Token | SequenceFailure]:
        events, ended = self._read(scheduled)
        self._drop(ended)
        return events

    def _read(self, scheduled: Scheduled) -> tuple[list[Token | SequenceFailure], list[Row]]:
        """Read the tokens of a draw; returns them, and the rows that end with theirs."""
        live = set(self._rows)
        drawn = DrawnTokens(scheduled.draw, self._end_ids)
        reported: list[Token | SequenceFailure] = []
        ended: list[Row] = []
        for i, row in enumerate(scheduled.rows):
            if row not in live:
                continue
            event = drawn.append_to(row, i)
            if is_last(event):
                ended.append(row)
            reported.append(event)
        return reported, ended

    def _join_cache(self, cache: PromptCache) -> None:
        if not self._rows:
            self._cache, self._is_merged = cache, False
        elif self._is_merged:
            self._cache = library.extended(self._cache, library.merge([cache]))
        else:
            self._cache, self._is_merged = library.merge([self._cache, cache]), True

    def _clear_buffers(self) -> None:
        self._num_steps += 1
        if self._num_steps % _STEPS_BETWEEN_CLEARS == 0:
            self._memory.trim_pool()


def _has_last_token(scheduled: Scheduled) -> bool:
    """Whether a row ends with these tokens: the next pass would compute it for nothing."""
    return any(row.num_left == 1 for row in scheduled.rows)
