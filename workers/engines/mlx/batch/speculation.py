"""Speculative decoding of one sequence: tokens are drafted cheaply and verified in one pass.

A draft is accepted only if the sampler draws the same token. Draws depend only on (seed,
position), so drafting does not change the text. Source: Leviathan et al. 2023, arXiv:2211.17192;
there, drafts are accepted at random, which keeps only the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import mlx.core as mx

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.sampling import Sampling
from workers.engines import mirostat
from workers.engines.base import Constraint, EngineOptions, SequenceFailure, Token
from workers.engines.dry import Repetitions
from workers.engines.mlx import library
from workers.engines.mlx.batch.drafting import Drafter
from workers.engines.mlx.batch.row import DrawnTokens, Row, is_last
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match, PromptStore
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.mlx.memory import Memory
from workers.engines.mlx.sampling.sampler import BatchSampler
from workers.engines.shared.token_key import to_key

_DEFAULT_DRAFT_TOKENS = 3
_MAX_DRAFT_TOKENS = 64
_STEPS_BETWEEN_CLEARS = 256


def is_requested(options: EngineOptions) -> bool:
    """Whether the options request drafting."""
    return options.draft_path is not None or options.num_draft_tokens is not None


def check_draft_options(options: EngineOptions) -> None:
    """Raise ``InvalidRequestError`` for impossible values, before anything is loaded."""
    num = num_draft_tokens(options)
    if not 1 <= num <= _MAX_DRAFT_TOKENS:
        message = f"num_draft_tokens must be 1 to {_MAX_DRAFT_TOKENS}, not {num}"
        raise InvalidRequestError(message, "num_draft_tokens")
    if options.num_slots is not None and options.num_slots > 1:
        message = f"drafting allows only one slot, not {options.num_slots}"
        raise InvalidRequestError(message, field_of(options))


def num_draft_tokens(options: EngineOptions) -> int:
    """Number of tokens drafted per step."""
    num = options.num_draft_tokens
    return _DEFAULT_DRAFT_TOKENS if num is None else num


def field_of(options: EngineOptions) -> str:
    """Name of the option that requests drafting, for errors."""
    return "num_draft_tokens" if options.draft_path is None else "draft_model"


def check_can_draft(model: Model, field: str) -> None:
    """Raise ``UnsupportedParameterError`` unless the model's cache can be trimmed at any length."""
    if not kv.can_always_trim(library.new_cache(model)):
        message = "this model's state cannot be trimmed (sliding window or recurrent layers)"
        raise UnsupportedParameterError(f"{message}: it does not work with drafts", field)


@dataclass(slots=True)
class _DraftRow:
    """One position of the sequence as a row for the sampler; ``tokens`` include the drafts."""

    sampling: Sampling
    tokens: ListLike[int]
    position: int
    mirostat_mu: float | None = None
    constraint: Constraint | None = None
    repetitions: Repetitions | None = None


class SpeculativeBatch:
    """A running batch (see ``RunningBatch``) of at most one row, with drafts.

    Nothing is scheduled ahead, because the drafts of a step depend on the tokens before it.
    """

    def __init__(
        self,
        model: Model,
        end_ids: frozenset[int],
        store: PromptStore,
        drafter: Drafter,
        num_drafts: int,
        memory: Memory | None = None,
    ) -> None:
        self._model = model
        self._memory = memory or Memory()
        self._end_ids = end_ids
        self._store = store
        self._drafter = drafter
        self._num_drafts = num_drafts
        self._row: Row | None = None
        self._cache: PromptCache = []
        self._num_steps = 0

    def __len__(self) -> int:
        return 0 if self._row is None else 1

    @property
    def rows(self) -> list[Row]:
        return [] if self._row is None else [self._row]

    def join(self, row: Row, cache: PromptCache) -> None:
        """Take the row; ``cache`` holds all its tokens but the last."""
        assert self._row is None
        self._row, self._cache = row, cache
        self._drafter.start(row.tokens)

    def remove(self, sequence_id: int) -> None:
        """Remove the row if it has this id."""
        if self._row is not None and self._row.sequence.sequence_id == sequence_id:
            self._drop(self._row)

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """Always ``None``: with one slot there is no prefill while a row runs."""
        return None

    def start(self) -> None:
        """Does nothing: no step is scheduled ahead."""

    def read_scheduled(self) -> list[Token | SequenceFailure]:
        """Always []."""
        return []

    def step(self) -> list[Token | SequenceFailure]:
        """The next tokens of the row: one, and one more for each draft that was right."""
        row = self._row
        if row is None:
            return []
        drafts = self._draft(row)
        events = self._verify(row, drafts)
        if is_last(events[-1]):
            self._drop(row)
        self._clear_buffers()
        return events

    def _draft(self, row: Row) -> list[int]:
        # One token per step comes without a draft.
        num = min(self._num_drafts, row.num_left - 1)
        # Mirostat's mu, a grammar's mask and DRY's penalties depend on the tokens before a place.
        is_free = not row.needs_last_token and not mirostat.is_used(row.sampling)
        if num < 1 or not is_free:
            return []
        return self._drafter.draft(row.tokens, num)

    def _verify(self, row: Row, drafts: list[int]) -> list[Token | SequenceFailure]:
        """Compute all drafts in one pass, and accept those that the sampler draws too."""
        inputs = mx.array([row.tokens[row.position], *drafts], dtype=mx.uint32)
        logits = self._model(inputs[None], cache=self._cache)[0]
        sampler = BatchSampler(_sampler_rows(row, drafts), self._end_ids)
        drawn = DrawnTokens(sampler.draw(logits, inputs), self._end_ids)
        events = [drawn.append_to(row, 0)]
        for index, draft in enumerate(drafts):
            if is_last(events[-1]) or drawn.ids[index] != draft:
                break
            events.append(drawn.append_to(row, index + 1))
        row.position += len(events)
        kv.trim(self._cache, 1 + len(drafts) - len(events))
        return events

    def _drop(self, row: Row) -> None:
        cache, self._row, self._cache = self._cache, None, []
        self._store.put(to_key(row.tokens[: row.position]), cache)
        self._memory.trim_pool()

    def _clear_buffers(self) -> None:
        self._num_steps += 1
        if self._num_steps % _STEPS_BETWEEN_CLEARS == 0:
            self._memory.trim_pool()


def _sampler_rows(row: Row, drafts: list[int]) -> ListLike[Row | _DraftRow]:
    if not drafts:
        return [row]
    tokens = row.tokens + drafts
    return [_DraftRow(row.sampling, tokens, row.position + i) for i in range(1 + len(drafts))]
