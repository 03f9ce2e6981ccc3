"""Jobs that need only the tokenizer and the chat template: count, tokenize, detokenize, render."""

from __future__ import annotations

from jobs.contract.errors import InvalidRequestError
from jobs.contract.requests import (
    ApplyTemplateRequest,
    DetokenizeRequest,
    TokenCountRequest,
    TokenizeRequest,
)
from workers.engines.base import Tokenizer
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder

TextRequest = TokenCountRequest | TokenizeRequest | DetokenizeRequest | ApplyTemplateRequest


def answer(
    request: TextRequest, tokenizer: Tokenizer, encoder: PromptEncoder, outbox: Outbox
) -> None:
    """Do the job and end it. Raises ``InvalidRequestError`` for invalid input."""
    match request:
        case TokenCountRequest():
            outbox.finish(num_tokens=len(encoder.encode(request.prompt)))
        case TokenizeRequest():
            _tokenize(request, tokenizer, outbox)
        case DetokenizeRequest():
            outbox.finish_text(_text_of(request.token_ids, tokenizer))
        case ApplyTemplateRequest():
            generates = request.add_generation_prompt
            outbox.finish_text(encoder.render(request.prompt, add_generation_prompt=generates))


def _tokenize(request: TokenizeRequest, tokenizer: Tokenizer, outbox: Outbox) -> None:
    ids = tokenizer.encode(
        request.text, add_special=request.add_special, parse_special=request.parse_special
    )
    pieces = [_bytes_of(tokenizer, token_id) for token_id in ids] if request.has_pieces else None
    outbox.finish_tokens(ids, pieces)


def _text_of(token_ids: list[int], tokenizer: Tokenizer) -> str:
    for token_id in token_ids:
        if not 0 <= token_id < tokenizer.vocab_size:
            raise InvalidRequestError(f"token {token_id} is not in the vocabulary", "tokens")
    pieces = b"".join(_bytes_of(tokenizer, token_id) for token_id in token_ids)
    return pieces.decode(errors="replace")  # the tokens may be only a part of a character


def _bytes_of(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes of a token; for a control token, its name."""
    return tokenizer.piece(token_id) or tokenizer.control_text(token_id).encode()
