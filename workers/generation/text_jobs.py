"""Jobs about text and tokens alone: done at once by the model's tokenizer, without the engine."""

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
    """Do the job and end it; ``InvalidRequestError`` names what is wrong with it."""
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
    pieces = [_spelling(tokenizer, token_id) for token_id in ids] if request.has_pieces else None
    outbox.finish_tokens(ids, pieces)


def _text_of(token_ids: list[int], tokenizer: Tokenizer) -> str:
    for token_id in token_ids:
        if not 0 <= token_id < tokenizer.vocab_size:
            raise InvalidRequestError(f"token {token_id} is not in the vocabulary", "tokens")
    pieces = b"".join(_spelling(tokenizer, token_id) for token_id in token_ids)
    return pieces.decode(errors="replace")  # a client may well ask for half a character


def _spelling(tokenizer: Tokenizer, token_id: int) -> bytes:
    """A token as a text that stands for it: control tokens by their names."""
    return tokenizer.piece(token_id) or tokenizer.control_text(token_id).encode()
