"""A job's events to a message and to the events of its stream. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from api.dialects.anthropic.content import Content, Step
from api.dialects.anthropic.errors import error_body
from api.web.errors import Problem
from jobs.contract.events import Event, EventKind, Usage

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

# OpenAI's words for a job's order -> Anthropic's.
_TIERS = {"flex": "batch", "priority": "priority"}

_encode = msgspec.json.Encoder().encode


class Answer:
    """One message as it comes to be: feed it the job's events, in order."""

    def __init__(
        self, job_id: str, model: str, *, is_thinking_shown: bool = True, tier: str = "default"
    ) -> None:
        self.job_id = job_id
        self._facts = {"id": job_id, "type": "message", "role": "assistant", "model": model}
        self._content = Content(job_id, is_thinking_shown)
        self._is_begun = False
        self._end: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        self._usage = Usage()
        self._tier = _TIERS.get(tier, "standard")

    def feed(self, event: Event) -> list[Step]:
        """What ``event`` changes, as stream events; the last of ``finished`` ends the stream."""
        if event.kind is EventKind.STARTED:
            self._usage = event.usage or self._usage
            return self._begin()
        if event.kind is EventKind.CHUNK:
            return self._begin() + self._chunk(event)
        if event.kind is EventKind.FINISHED:
            return self._begin() + self._finish(event)
        return []

    def shown(self) -> dict[str, Any]:
        """The message, as far as it has come."""
        return {
            **self._facts,
            "content": self._content.blocks,
            **self._end,
            "usage": _usage_object(self._usage, self._tier),
        }

    def _begin(self) -> list[Step]:
        """Once, however many attempts the job has."""
        if self._is_begun:
            return []
        self._is_begun = True
        return [("message_start", {"message": {**self.shown(), "content": []}})]

    def _chunk(self, event: Event) -> list[Step]:
        steps: list[Step] = []
        if event.reasoning:
            steps += self._content.write("thinking", event.reasoning)
        if event.text:
            steps += self._content.write("text", event.text)
        for call in event.tool_calls:
            steps += self._content.call(call)
        if event.finish_reason is not None:
            reason = _STOP_REASONS[event.finish_reason]
            if event.stop is not None and reason == "end_turn":
                reason = "stop_sequence"
            self._end = {"stop_reason": reason, "stop_sequence": event.stop}
        return steps

    def _finish(self, event: Event) -> list[Step]:
        self._usage = event.usage or self._usage
        fields = {"delta": self._end, "usage": _usage_object(self._usage, self._tier)}
        return [*self._content.finish(), ("message_delta", fields), ("message_stop", {})]


class MessageEncoder:
    """The frames of one streamed message, event by event."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def feed(self, event: Event) -> bytes:
        """The frames of ``event``, possibly none; those of ``finished`` end the stream."""
        return b"".join(_frame(kind, fields) for kind, fields in self._answer.feed(event))

    def failed(self, problem: Problem) -> bytes:
        """The frame of the error that ends a stream."""
        return b"event: error\ndata: " + error_body(problem, self._answer.job_id) + b"\n\n"


def whole_message(answer: Answer, events: Iterable[Event]) -> bytes:
    """The body of a message that is not streamed; ``events`` are all of the job's."""
    for event in events:
        answer.feed(event)
    return _encode(answer.shown())


def _frame(kind: str, fields: dict[str, Any]) -> bytes:
    data = _encode({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _usage_object(usage: Usage, tier: str) -> dict[str, Any]:
    """Anthropic's ``usage``: what came from the prompt cache is not counted as input again."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "service_tier": tier,
    }
