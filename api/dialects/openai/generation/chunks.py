"""Events of a job to OpenAI's stream chunks, one SSE frame each. Pure.

A chunk is a constant head, the JSON of its choice, and a constant tail: nothing is built twice.
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.dialects.openai.generation.calls import call_delta, reasoning_fields
from api.dialects.openai.generation.logprobs import TextOffsets, chat_logprobs
from api.dialects.openai.generation.usage import timings_object, usage_object
from api.web.errors import Problem
from jobs.contract.events import Event, EventKind
from jobs.contract.requests import GenerateRequest

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class ChunkEncoder:
    """The frames of one streamed answer, event by event."""

    def __init__(
        self, job_id: str, created: int, request: GenerateRequest, tier: str = "default"
    ) -> None:
        self._request = request
        self._is_chat = request.api == "chat"
        self._num_open = len(request.prompts) * request.num_choices
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        facts = {
            "id": job_id,
            "object": kind,
            "created": created,
            "model": request.model,
            "service_tier": tier,
        }
        self._head = b"data: " + _encode(facts)[:-1] + b',"choices":['
        # Who asked for usage gets the field in every chunk, null but in the last.
        self._tail = b'],"usage":null}\n\n' if request.include_usage else b"]}\n\n"
        self._is_begun = False
        self._last = b""
        self._texts: list[list[str]] = [[] for _ in range(self._num_open)]
        self._offsets = [TextOffsets() for _ in range(self._num_open)]

    def feed(self, event: Event) -> bytes:
        """The frames that ``event`` makes, possibly none; after ``finished`` the stream is over."""
        if event.kind is EventKind.CHUNK:
            return self._chunk(event)
        if event.kind is EventKind.STARTED and not self._is_begun:
            self._is_begun = True
            return self._opening()
        if event.kind is EventKind.FINISHED:
            return self._closing(event)
        return b""

    def failed(self, problem: Problem) -> bytes:
        """The error's frame, the last one."""
        return problem.frame()

    def _opening(self) -> bytes:
        """The role of each choice's message, or the prompt that a text choice repeats."""
        if self._is_chat:
            role = {"delta": {"role": "assistant", "content": ""}}
            return b"".join(self._frame(i, role) for i in range(self._num_open))
        if not self._request.echo or self._request.is_prompt_scored:
            return b""
        return b"".join(self._echo(i) for i in range(self._num_open))

    def _echo(self, index: int) -> bytes:
        text = self._request.prompts[index // self._request.num_choices].text or ""
        self._note(index, text)
        return self._frame(index, {"text": text})

    def _chunk(self, event: Event) -> bytes:
        frames = b""
        if event.reasoning:
            frames += self._delta(event, {"content": "", **reasoning_fields(event.reasoning)})
        if event.text or event.logprobs or event.prompt:
            self._note(event.choice, event.text)
            frames += self._content(event)
        for call in event.tool_calls:
            frames += self._delta(event, {"content": "", "tool_calls": [call_delta(call)]})
        if event.finish_reason is None:
            return frames
        self._num_open -= 1
        if self._num_open:
            return frames + self._frame(event.choice, self._empty(), None, event.finish_reason)
        # Waits for the job's end: the timings ride on it.
        self._last = _choice(event.choice, self._empty(), None, event.finish_reason)
        return frames

    def _content(self, event: Event) -> bytes:
        if self._is_chat:
            content = {"delta": {"content": event.text}}
            return self._frame(event.choice, content, chat_logprobs(event.logprobs))
        tokens = event.logprobs if event.prompt is None else event.prompt
        logprobs = self._offsets[event.choice].add(tokens)
        return self._frame(event.choice, {"text": event.text}, logprobs)

    def _delta(self, event: Event, delta: dict[str, Any]) -> bytes:
        return self._frame(event.choice, {"delta": delta})

    def _empty(self) -> dict[str, Any]:
        return {"delta": {"content": ""}} if self._is_chat else {"text": ""}

    def _frame(
        self,
        index: int,
        content: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        return self._head + _choice(index, content, logprobs, finish_reason) + self._tail

    def _note(self, index: int, text: str) -> None:
        if self._request.complete_text:
            self._texts[index].append(text)

    def _closing(self, event: Event) -> bytes:
        """What is last: finish chunk, usage chunk, complete text, ``[DONE]``; timings on one."""
        timings = _encode(timings_object(event.timings, event.usage))
        usage = _encode(usage_object(event.usage, event.timings))
        is_extra = self._request.include_usage or self._request.complete_text
        plain = self._tail[:-3]
        finish_tail = plain + (b"" if is_extra else b',"timings":' + timings)
        frames = self._head + self._last + finish_tail + b"}\n\n" if self._last else b""
        full_tail = b'],"usage":' + usage + b',"timings":' + timings + b"}\n\n"
        if self._request.include_usage:
            frames += self._head + full_tail
        if self._request.complete_text:
            frames += self._head + self._complete_texts() + full_tail
        return frames + DONE

    def _complete_texts(self) -> bytes:
        extra = self._empty() if self._is_chat else {}
        choices = [
            {"index": i, "text": "", "complete_text": "".join(parts), **extra}
            for i, parts in enumerate(self._texts)
        ]
        return b",".join(map(_encode, choices))


def _choice(
    index: int, content: dict[str, Any], logprobs: dict[str, Any] | None, reason: str | None
) -> bytes:
    return _encode({"index": index, **content, "logprobs": logprobs, "finish_reason": reason})
