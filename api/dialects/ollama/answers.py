"""A job's events to ollama's lines of JSON, or to one object. Pure. Durations are nanoseconds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from api.dialects.call_arguments import arguments_object
from api.dialects.ollama.errors import error_body
from api.dialects.openai.generation.logprobs import chat_logprobs
from api.execution.shapes import Shape
from api.web.errors import Problem
from jobs.contract.events import CalledTool, Event, EventKind, Timings, Usage, add_calls
from jobs.contract.requests import GenerateRequest

CONTENT_TYPE = b"application/x-ndjson"
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


def stamp(seconds: float) -> str:
    """Epoch seconds as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """A duration as ollama shows it."""
    return round(seconds * _NS_PER_S)


class Answer:
    """One answer as it comes to be: feed it the job's events, in order."""

    def __init__(self, shape: str, model: str) -> None:
        self._is_chat = shape == Shape.OLLAMA_CHAT
        self._model = model
        self._calls: list[CalledTool] = []
        self._num_told = 0  # of the calls
        self._reason = "stop"

    @classmethod
    def of(cls, request: GenerateRequest) -> Answer:
        """The answer to that request."""
        return cls(request.view.shape, request.model)

    def feed(self, event: Event) -> list[Json]:
        """The lines that ``event`` adds, possibly none; that of ``finished`` is the last."""
        if event.kind is EventKind.CHUNK:
            return self._chunk(event)
        if event.kind is EventKind.FINISHED:
            metrics = _metrics(event.usage or Usage(), event.timings or Timings())
            return [self.ended(event.t, self._reason, **metrics)]
        return []

    def whole(self, events: Iterable[Event]) -> Json:
        """All lines as one object; ``events`` are all of the job's."""
        lines = [line for event in events for line in self.feed(event)]
        parts = [line["message"] if self._is_chat else line for line in lines]
        names = ("content" if self._is_chat else "response", "thinking")
        texts = {name: "".join(part.get(name, "") for part in parts) for name in names}
        found: Json = {name: text for name, text in texts.items() if text or name != "thinking"}
        if calls := [call for part in parts for call in part.get("tool_calls", ())]:
            found["tool_calls"] = calls
        if logprobs := [token for line in lines for token in line.get("logprobs", ())]:
            lines[-1]["logprobs"] = logprobs
        if not self._is_chat:
            return {**lines[-1], **found}
        return {**lines[-1], "message": {"role": "assistant", **found}}

    def ended(self, when: float, reason: str, **metrics: int) -> Json:
        """The last line; ``when`` in epoch seconds."""
        return {**self._line(when), "done": True, "done_reason": reason, **metrics}

    def pause(self) -> Json:
        """A line without text, for times in which there is none."""
        return self._line(time.time())

    def _line(self, when: float, text: str = "", **more: Any) -> Json:
        facts = {"model": self._model, "created_at": stamp(when)}
        if self._is_chat:
            message = {"role": "assistant", "content": text, **more}
            return {**facts, "message": message, "done": False}
        return {**facts, "response": text, **more, "done": False}

    def _chunk(self, event: Event) -> list[Json]:
        lines = []
        if event.reasoning:
            lines.append(self._line(event.t, thinking=event.reasoning))
        if event.text or (event.logprobs and not lines):
            lines.append(self._line(event.t, event.text))
        if event.logprobs:
            lines[-1]["logprobs"] = (chat_logprobs(event.logprobs) or {})["content"]
        add_calls(self._calls, event.tool_calls)
        if event.finish_reason is not None and event.finish_reason != "tool_calls":
            self._reason = event.finish_reason
        # A call is told as a whole: when the next begins, or the text ends.
        num_whole = len(self._calls) - (event.finish_reason is None)
        if num_whole > self._num_told:
            lines.append(self._line(event.t, tool_calls=self._told(num_whole)))
        return lines

    def _told(self, num_whole: int) -> list[Json]:
        new = range(self._num_told, num_whole)
        self._num_told = num_whole
        return [_call(index, self._calls[index]) for index in new]


class LineEncoder:
    """The lines of one streamed answer, event by event."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def feed(self, event: Event) -> bytes:
        """The lines of ``event``, possibly none."""
        return b"".join(_encode(line) + b"\n" for line in self._answer.feed(event))

    def failed(self, problem: Problem) -> bytes:
        """The line of the error that ends a stream."""
        return error_body(problem) + b"\n"

    def ping(self) -> bytes:
        """A line for clients that wait: they read each as an object."""
        return _encode(self._answer.pause()) + b"\n"


def _call(index: int, call: CalledTool) -> Json:
    arguments = arguments_object(call.arguments)
    return {
        "id": call.id,
        "function": {"index": index, "name": call.name, "arguments": arguments},
    }


def _metrics(usage: Usage, timings: Timings) -> dict[str, int]:
    """``load_duration`` is the wait for the model and for a free slot."""
    durations = {
        "total_duration": timings.ttft_ms + timings.decode_ms,
        "load_duration": timings.queue_ms,
        "prompt_eval_duration": timings.prefill_ms,
        "eval_duration": timings.decode_ms,
    }
    counts = {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}
    return {**{name: round(ms * _NS_PER_MS) for name, ms in durations.items()}, **counts}
