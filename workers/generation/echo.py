"""The echo: the prompt before its continuation, with the log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.contract.events import TokenLogprob
from workers.engines.base import PromptLogprobs, Tokenizer
from workers.text.detokenizer import Detokenizer

CHUNK_TOKENS = 256
"""Prompt tokens per event; each needs some hundred bytes for its log-probabilities."""

EchoChunk = tuple[str, list[TokenLogprob]]
"""A part of the prompt: its text for the client, and its tokens."""

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt to echo; ``text``: as the client sent it, ``None`` if it sent token ids.

    ``num_sent`` chunks are already in the job's log, from an earlier attempt.
    """

    text: str | None
    token_ids: list[int]
    num_sent: int = 0

    @property
    def num_chunks(self) -> int:
        return -(-len(self.token_ids) // CHUNK_TOKENS)

    @property
    def is_sent(self) -> bool:
        return self.num_sent >= self.num_chunks

    def chunks(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> list[EchoChunk]:
        """The chunks still to send, in order. The first of all chunks has the whole ``text``."""
        return [*self._chunks(scored, tokenizer)][self.num_sent :]

    def _chunks(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> Iterator[EchoChunk]:
        detokenizer = Detokenizer()
        tokens = [*self._tokens(scored, tokenizer)]
        for start in range(0, len(tokens), CHUNK_TOKENS):
            part = tokens[start : start + CHUNK_TOKENS]
            text = "".join(detokenizer.feed(bytes(token.raw)) for token in part)
            if start + CHUNK_TOKENS >= len(tokens):
                text += detokenizer.finish()
            if self.text is not None:
                text = self.text if start == 0 else ""
            yield text, part

    def _tokens(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> Iterator[TokenLogprob]:
        # The first token has no prediction.
        yield to_logprob(tokenizer, self.token_ids[0], None)
        for token_id, (logprob, top) in zip(self.token_ids[1:], scored.entries, strict=True):
            yield to_logprob(tokenizer, token_id, logprob, top)


def to_logprob(
    tokenizer: Tokenizer, token_id: int, logprob: float | None, top: TopLogprobs = ()
) -> TokenLogprob:
    """A token in the form of events, with the top tokens of its position."""
    piece = tokenizer.piece(token_id)
    likeliest = [to_logprob(tokenizer, other_id, value) for other_id, value in top]
    return TokenLogprob(token_id, piece.decode(errors="replace"), logprob, list(piece), likeliest)
