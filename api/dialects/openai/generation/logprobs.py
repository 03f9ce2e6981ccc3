"""Log-probabilities of tokens in OpenAI's two shapes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.contract.events import Event, TokenLogprob

_LOWEST = -9999.0  # JSON has no infinity; OpenAI's own stand-in


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LOWEST)


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": token.raw}


def chat_logprobs(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """``choices[].logprobs`` of a chat, ``None`` when nobody asked."""
    if tokens is None:
        return None
    content = [{**_entry(token), "top_logprobs": list(map(_entry, token.top))} for token in tokens]
    return {"content": content, "refusal": None}


def next_token_probabilities(events: Iterable[Event]) -> dict[str, float]:
    """The likeliest first tokens of an answer, by their texts."""
    tops = [token.top for event in events for token in event.logprobs or ()]
    likeliest = tops[0] if tops else []
    return {one.text: math.exp(one.logprob) for one in likeliest if one.logprob is not None}


class TextOffsets:
    """``choices[].logprobs`` of text completions: token places count on from chunk to chunk."""

    def __init__(self) -> None:
        self._offset = 0

    def add(self, tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
        """The object for the next tokens, ``None`` when nobody asked."""
        if tokens is None:
            return None
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [_top(token) for token in tokens],
            "text_offset": [self._advance(token) for token in tokens],
        }

    def _advance(self, token: TokenLogprob) -> int:
        start = self._offset
        self._offset += len(token.text)
        return start


def _top(token: TokenLogprob) -> dict[str, float | None] | None:
    """Most likely first; the chosen token is there even when it was not among them.

    ``None`` for a prompt's first token.
    """
    if token.logprob is None:
        return None
    top: dict[str, float | None] = {}
    for entry in (*token.top, token):
        top.setdefault(entry.text, _finite(entry.logprob))
    return top
