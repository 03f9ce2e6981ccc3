"""A prompt repeated before its continuation, with the log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.contract.events import TokenLogprob
from workers.engines.base import PromptLogprobs, Tokenizer
from workers.text.detokenizer import Detokenizer

PIECE_TOKENS = 256
"""Prompt tokens per event: each carries some hundred bytes of log-probabilities."""

EchoChunk = tuple[str, list[TokenLogprob]]
"""A part of the prompt: text to show, and its tokens."""

TopLogprobs = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """What to repeat: ``text`` as the client gave it, ``None`` for who gave token ids.

    ``num_sent`` chunks are in the job's log already, from an earlier attempt.
    """

    text: str | None
    token_ids: list[int]
    num_sent: int = 0

    @property
    def num_pieces(self) -> int:
        return -(-len(self.token_ids) // PIECE_TOKENS)

    @property
    def is_sent(self) -> bool:
        return self.num_sent >= self.num_pieces

    def chunks(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> list[EchoChunk]:
        """What is still to be sent, in order. A given text goes out whole with the first."""
        return [*self._chunks(scored, tokenizer)][self.num_sent :]

    def _chunks(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> Iterator[EchoChunk]:
        detokenizer = Detokenizer()
        tokens = [*self._tokens(scored, tokenizer)]
        for start in range(0, len(tokens), PIECE_TOKENS):
            part = tokens[start : start + PIECE_TOKENS]
            text = "".join(detokenizer.feed(bytes(token.raw)) for token in part)
            if start + PIECE_TOKENS >= len(tokens):
                text += detokenizer.finish()
            if self.text is not None:
                text = self.text if start == 0 else ""
            yield text, part

    def _tokens(self, scored: PromptLogprobs, tokenizer: Tokenizer) -> Iterator[TokenLogprob]:
        # Nothing predicts the first token.
        yield to_logprob(tokenizer, self.token_ids[0], None)
        for token_id, (logprob, top) in zip(self.token_ids[1:], scored.entries, strict=True):
            yield to_logprob(tokenizer, token_id, logprob, top)


def to_logprob(
    tokenizer: Tokenizer, token_id: int, logprob: float | None, top: TopLogprobs = ()
) -> TokenLogprob:
    """A token as events carry it, with the likeliest at its place."""
    piece = tokenizer.piece(token_id)
    likeliest = [to_logprob(tokenizer, other_id, value) for other_id, value in top]
    return TokenLogprob(token_id, piece.decode(errors="replace"), logprob, list(piece), likeliest)
