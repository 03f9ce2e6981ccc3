"""Jobs about text and tokens alone: checked bodies to requests, their last event to answers. Pure.

Whatever their words, they are answered alike to who waits and to who reads the job later.
"""

from __future__ import annotations

from typing import Any

from api.dialects.generation_params import checked_text
from api.dialects.openai.generation.messages import to_messages
from api.dialects.openai.generation.reasoning import template_options_of
from api.dialects.openai.generation.tools import to_tools
from api.dialects.openai.text.schema import ApplyTemplateBody, DetokenizeBody, TokenizeBody
from api.execution.shapes import Shape
from jobs.contract.errors import InvalidRequestError
from jobs.contract.events import Event
from jobs.contract.requests import (
    ApplyTemplateRequest,
    DetokenizeRequest,
    Prompt,
    TokenCountRequest,
    TokenizeRequest,
)

TextRequest = TokenCountRequest | TokenizeRequest | DetokenizeRequest | ApplyTemplateRequest


def to_tokenize_request(body: TokenizeBody) -> TokenizeRequest:
    """The job; an empty text is one, no text is not."""
    given = [text for text in (body.content, body.prompt, body.text) if text is not None]
    if len(given) != 1:
        message = "one of content, prompt and text is required"
        raise InvalidRequestError(message, "content")
    request = TokenizeRequest(given[0], body.add_special, body.parse_special, body.with_pieces)
    return checked_text(request, body)


def to_detokenize_request(body: DetokenizeBody) -> DetokenizeRequest:
    """The job; no tokens are an empty text."""
    return DetokenizeRequest(body.tokens)


def to_apply_template_request(body: ApplyTemplateBody) -> ApplyTemplateRequest:
    """The job, with the messages as a chat would send them."""
    if bool(body.messages) == bool(body.prompt):
        raise InvalidRequestError("either messages or prompt is required", "messages")
    prompt = Prompt(
        text=body.prompt or None,
        messages=to_messages(body.messages) if body.messages else None,
        tools=to_tools(body.tools),
        template_options=template_options_of(body),
    )
    return checked_text(ApplyTemplateRequest(prompt, body.add_generation_prompt), body)


def text_answer(request: TextRequest, last: Event) -> dict[str, Any]:
    """The body of the answer, from the job's ``finished`` event."""
    match request:
        case TokenCountRequest():
            return _count(request.view.shape, last)
        case TokenizeRequest():
            return {"tokens": _tokens(last), "length": len(last.token_ids)}
        case DetokenizeRequest():
            return {"text" if request.view.shape == Shape.TEXT else "content": last.text}
        case ApplyTemplateRequest():
            return {"prompt": last.text}


def _count(shape: str, last: Event) -> dict[str, Any]:
    if shape == Shape.INPUT_TOKENS:
        return {"object": "response.input_tokens", "input_tokens": last.num_tokens}
    return {"input_tokens" if shape == Shape.MESSAGE_TOKENS else "length": last.num_tokens}


def _tokens(last: Event) -> list[Any]:
    if last.pieces is None:
        return last.token_ids
    pairs = zip(last.token_ids, last.pieces, strict=True)
    return [{"id": token_id, "piece": _piece(piece)} for token_id, piece in pairs]


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
