"""What ends a choice besides its engine and its stop strings, and what keeps it from ending."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from jobs.contract.requests import GenerateRequest
from workers.engines.base import Constraint, FinishReason, Tokenizer


class Ends:
    """The ends of one choice: stop tokens, a time limit, and the length before which there is none.

    llama-server's time limit counts from the first token, and acts once there is a line break: what
    it cuts are completions in an editor. A later attempt counts anew. ``min_indent`` ends a text at
    a new line that is indented by fewer blanks or tabs: that, too, is llama-server's.
    """

    def __init__(
        self,
        min_tokens: int = 0,
        stop_token_ids: Iterable[int] = (),
        limit_ms: float | None = None,
        min_indent: int = 0,
    ) -> None:
        self.min_tokens = min_tokens
        self._min_indent = min_indent
        self._indent: int | None = None  # of the line that has only blanks so far
        self._stop_token_ids = frozenset(stop_token_ids)
        self._limit_ms = limit_ms
        self._started_at: float | None = None
        self._has_line_break = False

    @classmethod
    def of(cls, request: GenerateRequest) -> Ends:
        """Those that the request names."""
        return cls(
            request.min_tokens,
            request.stop_token_ids,
            request.predict_limit_ms,
            request.min_indent,
        )

    def is_stop(self, token_id: int, num_tokens: int) -> bool:
        """Whether the token after ``num_tokens`` others is one that ends the text."""
        return token_id in self._stop_token_ids and num_tokens >= self.min_tokens

    def cut(self, text: str, num_tokens: int) -> tuple[str, FinishReason | None]:
        """What stays of ``text``, which came after ``num_tokens`` tokens; the reason to end."""
        end = self._end_of_block(text) if self._min_indent else None
        is_long_enough = num_tokens + 1 >= self.min_tokens
        if end is not None and is_long_enough:
            return text[:end], FinishReason.LENGTH
        is_over = self._is_late(text) and is_long_enough
        return text, FinishReason.LENGTH if is_over else None

    def _end_of_block(self, text: str) -> int | None:
        """Where ``text`` has the first character of a line that is indented too little."""
        for place, char in enumerate(text):
            if self._indent is not None and char in " \t":
                self._indent += 1
            elif self._indent is not None and self._indent < self._min_indent:
                return place
            else:
                self._indent = 0 if char == "\n" else None
        return None

    def _is_late(self, text: str) -> bool:
        if self._limit_ms is None:
            return False
        now = time.monotonic()
        if self._started_at is None:
            self._started_at = now
        self._has_line_break = self._has_line_break or "\n" in text
        return self._has_line_break and (now - self._started_at) * 1000 > self._limit_ms


class MinLength:
    """A constraint that bans the ends until there are ``num_tokens``; and that of ``inner``.

    Where the inner one allows nothing but an end, it may end.
    """

    def __init__(
        self, end_ids: Iterable[int], vocab_size: int, num_tokens: int, inner: Constraint | None
    ) -> None:
        self._going_on = np.ones(vocab_size, dtype=np.bool_)
        self._going_on[[end for end in end_ids if end < vocab_size]] = False
        self._num_left = num_tokens
        self._inner = inner

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """See ``Constraint``."""
        mask = self._inner.allowed() if self._inner is not None else None
        if self._num_left <= 0:
            return mask
        going_on = self._going_on if mask is None else mask & self._going_on
        return going_on if going_on.any() else mask

    def accept(self, token_id: int) -> None:
        """See ``Constraint``."""
        self._num_left -= 1
        if self._inner is not None:
            self._inner.accept(token_id)


def with_min_length(
    request: GenerateRequest, inner: Constraint | None, tokenizer: Tokenizer
) -> Constraint | None:
    """``inner``, together with the request's shortest length if it has one."""
    if not request.min_tokens:
        return inner
    end_ids = tokenizer.end_ids | frozenset(request.stop_token_ids)
    return MinLength(end_ids, tokenizer.vocab_size, request.min_tokens, inner)
