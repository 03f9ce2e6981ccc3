"""What lists of jobs say of a request without showing its prompt."""

from __future__ import annotations

from jobs.contract.requests import EmbedRequest, GenerateRequest, Prompt, Request


def kind_of(request: Request) -> str:
    """``chat``, ``text``, another dialect's name of its answers, or ``""`` for other tasks."""
    return (request.view.shape or request.api) if isinstance(request, GenerateRequest) else ""


def prompt_length(request: Request) -> int:
    """Length of the prompts in characters, in tokens where they are tokens; 0 for other tasks."""
    if isinstance(request, GenerateRequest):
        return sum(map(_length, request.prompts))
    return sum(map(_length, request.inputs)) if isinstance(request, EmbedRequest) else 0


def _length(prompt: Prompt) -> int:
    texts = [message.content or "" for message in prompt.messages or ()]
    texts += [prompt.text or "", prompt.suffix or ""]
    return len(prompt.token_ids or ()) + sum(map(len, texts))
