"""Decoding one sequence several tokens at a time: drafted cheaply, verified in one pass.

A drafted token is kept only if it is the one that the sampler draws at its place. Draws depend on
(seed, position) alone, so the text is the one without drafts. Speculative decoding: Leviathan et
al. 2023, arXiv:2211.17192, here with the draws fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import mlx.core as mx

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.sampling import Sampling
from workers.engines import mirostat
from workers.engines.base import Constraint, EngineOptions, SequenceFailure, Token
from workers.engines.mlx import library
from workers.engines.mlx.batch.drafting import Drafter
from workers.engines.mlx.batch.row import DrawnTokens, Row, is_last
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Match, PromptStore
from workers.engines.mlx.library import Model, PromptCache
from workers.engines.mlx.sampling.sampler import BatchSampler
from workers.engines.shared.token_key import to_key

_DEFAULT_DRAFT_TOKENS = 3
_MAX_DRAFT_TOKENS = 64
_STEPS_BETWEEN_CLEARS = 256


def is_asked_for(options: EngineOptions) -> bool:
    """Whether tokens are to be drafted."""
    return options.draft_path is not None or options.num_draft_tokens is not None


def check_draft_options(options: EngineOptions) -> None:
    """``InvalidRequestError`` for what cannot be, before anything is loaded."""
    num = num_draft_tokens(options)
    if not 1 <= num <= _MAX_DRAFT_TOKENS:
        message = f"num_draft_tokens is 1 to {_MAX_DRAFT_TOKENS}, not {num}"
        raise InvalidRequestError(message, "num_draft_tokens")
    if options.num_slots is not None and options.num_slots > 1:
        message = f"drafting needs one slot, {options.num_slots} were asked for"
        raise InvalidRequestError(message, field_of(options))


def num_draft_tokens(options: EngineOptions) -> int:
    """How many tokens are drafted for a step."""
    asked = options.num_draft_tokens
    return _DEFAULT_DRAFT_TOKENS if asked is None else asked


def field_of(options: EngineOptions) -> str:
    """The option that asks for drafts."""
    return "num_draft_tokens" if options.draft_path is None else "draft_model"


def check_can_draft(model: Model, field: str) -> None:
    """A model must be able to take back tokens that it has read, at any length."""
    if not kv.grows(library.new_cache(model)):
        message = "this model's state cannot be taken back (sliding window or recurrent layers)"
        raise UnsupportedParameterError(f"{message}: it cannot be used with drafts", field)


@dataclass(slots=True)
class _Place:
    """One place of the sequence as the sampler sees a row; ``tokens`` has the drafts too."""

    sampling: Sampling
    tokens: ListLike[int]
    position: int
    mirostat_mu: float | None = None
    constraint: Constraint | None = None


class SpeculativeBatch:
    """A running batch (see ``RunningBatch``) of at most one row, which advances by its drafts.

    Nothing is scheduled ahead: the drafts of a step depend on the tokens of the one before.
    """

    def __init__(
        self,
        model: Model,
        end_ids: frozenset[int],
        store: PromptStore,
        drafter: Drafter,
        num_drafts: int,
    ) -> None:
        self._model = model
        self._end_ids = end_ids
        self._store = store
        self._drafter = drafter
        self._num_drafts = num_drafts
        self._row: Row | None = None
        self._cache: PromptCache = []
        self._num_steps = 0

    def __len__(self) -> int:
        return 0 if self._row is None else 1

    def join(self, row: Row, cache: PromptCache) -> None:
        """Take the row; ``cache`` holds its tokens before ``position``, the last one's."""
        assert self._row is None
        self._row, self._cache = row, cache
        self._drafter.start(row.tokens)

    def remove(self, sequence_id: int) -> None:
        """Drop the row, if it is that one."""
        if self._row is not None and self._row.sequence.sequence_id == sequence_id:
            self._drop(self._row)

    def find(self, key: bytes, max_tokens: int) -> Match | None:
        """Nothing: no prompt is processed while the row runs."""
        return None

    def start(self) -> None:
        """Nothing: steps are computed when they are due."""

    def step(self) -> list[Token | SequenceFailure]:
        """The next tokens of the row: one, and one for each draft that was right."""
        row = self._row
        if row is None:
            return []
        drafts = self._draft(row)
        events = self._verify(row, drafts)
        if is_last(events[-1]):
            self._drop(row)
        self._tidy()
        return events

    def _draft(self, row: Row) -> list[int]:
        # The one token that no draft is needed for also counts.
        num = min(self._num_drafts, row.num_left - 1)
        # mu and a grammar's mask at a place depend on the tokens before it.
        is_free = row.constraint is None and not mirostat.is_used(row.sampling)
        if num < 1 or not is_free:
            return []
        return self._drafter.draft(row.tokens, num)

    def _verify(self, row: Row, drafts: list[int]) -> list[Token | SequenceFailure]:
        """Read the drafts in one pass and keep what the sampler draws itself."""
        inputs = mx.array([row.tokens[row.position], *drafts], dtype=mx.uint32)
        logits = self._model(inputs[None], cache=self._cache)[0]
        sampler = BatchSampler(_places(row, drafts), self._end_ids)
        drawn = DrawnTokens(sampler.draw(logits, inputs), self._end_ids)
        events = [drawn.append_to(row, 0)]
        for place, draft in enumerate(drafts):
            if is_last(events[-1]) or drawn.ids[place] != draft:
                break
            events.append(drawn.append_to(row, place + 1))
        row.position += len(events)
        kv.trim(self._cache, 1 + len(drafts) - len(events))
        return events

    def _drop(self, row: Row) -> None:
        self._store.put(to_key(row.tokens[: row.position]), self._cache)
        self._row, self._cache = None, []
        mx.clear_cache()

    def _tidy(self) -> None:
        self._num_steps += 1
        if self._num_steps % _STEPS_BETWEEN_CLEARS == 0:
            mx.clear_cache()


def _places(row: Row, drafts: list[int]) -> ListLike[Row | _Place]:
    if not drafts:
        return [row]
    tokens = row.tokens + drafts
    return [_Place(row.sampling, tokens, row.position + i) for i in range(1 + len(drafts))]
