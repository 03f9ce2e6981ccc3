"""A job's events to a response object and to the events of its stream. Pure.

Everything here is a function of the record and of the job's events in their order, the events'
sequence numbers too: told again from the start, the stream is the same to the byte.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from api.dialects.openai.generation.logprobs import chat_logprobs
from api.dialects.openai.generation.usage import timings_object
from api.dialects.responses.output import Logprob, Output, Step
from api.dialects.responses.translate import NAMES
from api.execution.runner import error_of
from api.web.errors import INVALID, Problem, problem_of, renamed
from jobs.contract.events import Event, EventKind, Usage
from jobs.storage.stored_responses import StoredResponse

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
_ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
_RATE_CODES = frozenset({"queue_full", "too_many_jobs"})

_encode = msgspec.json.Encoder().encode


class Answer:
    """One response as it comes to be: feed it the job's events, in order."""

    def __init__(self, record: StoredResponse) -> None:
        self.status: Status = "queued"
        self._record = record
        self._output = Output(record.response_id)
        self._is_created = False
        self._is_cut = False
        self._logprobs: list[Logprob] = []
        self._end: Event | None = None
        self._problem: Problem | None = None

    @property
    def is_ended(self) -> bool:
        return self.status in _ENDED

    def queue(self) -> list[Step]:
        """A background response is shown before anything is known of its job."""
        return [*self._create(), self._tell("queued")]

    def feed(self, event: Event) -> list[Step]:
        """What ``event`` changes, as stream events; the last of ``finished`` ends the stream."""
        if event.kind is EventKind.STARTED:
            return self._begin()
        if event.kind is EventKind.CHUNK:
            return self._begin() + self._chunk(event)
        if event.kind is EventKind.FINISHED:
            return self._begin() + self._finish(event)
        if event.is_terminal:
            return self.fail(problem_of(renamed(error_of(event), NAMES)))
        return []

    def fail(self, problem: Problem) -> list[Step]:
        """The job failed or was cancelled."""
        steps = self._create()
        self._problem = problem
        self.status = "cancelled" if problem.code == "job_cancelled" else "failed"
        return [*steps, self._tell("failed")]

    def shown(self) -> dict[str, Any]:
        """The response object, as far as it has come."""
        end = self._end
        is_cut = self.status == "incomplete"
        return {
            "id": self._record.response_id,
            "object": "response",
            "created_at": self._record.created_at,
            "status": self.status,
            "model": self._record.model,
            **self._record.echo,
            "error": self._error(),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._output.items("incomplete" if self.is_ended else "in_progress"),
            "completed_at": int(end.t) if end and self.status == "completed" else None,
            "usage": self._usage(end.usage or Usage()) if end else None,
            **({"timings": timings_object(end.timings)} if end else {}),
        }

    def _create(self) -> list[Step]:
        if self._is_created:
            return []
        self._is_created = True
        return [self._tell("created")]

    def _begin(self) -> list[Step]:
        """Once, however many attempts the job has."""
        if self.status != "queued":
            return []
        if not self._record.is_background:
            self.status = "in_progress"
        steps = self._create()
        self.status = "in_progress"
        return [*steps, self._tell("in_progress")]

    def _chunk(self, event: Event) -> list[Step]:
        steps: list[Step] = []
        if event.reasoning:
            steps += self._output.write("reasoning", event.reasoning)
        steps += self._text(event)
        for call in event.tool_calls:
            steps += self._output.call(call)
        if event.finish_reason is not None:
            self._is_cut = event.finish_reason == "length"
            steps += self._output.close(is_cut=self._is_cut)
        return steps

    def _text(self, event: Event) -> list[Step]:
        """The message goes on; log-probabilities wait for the text that their tokens become."""
        self._logprobs += (chat_logprobs(event.logprobs) or {"content": []})["content"]
        is_last = event.finish_reason is not None and self._output.is_message_open
        if not event.text and not (is_last and self._logprobs):
            if event.reasoning or event.tool_calls:
                self._logprobs = []
            return []
        logprobs, self._logprobs = self._logprobs, []
        return self._output.write("message", event.text, logprobs)

    def _finish(self, event: Event) -> list[Step]:
        steps = self._output.finish()
        self._end = event
        self.status = "incomplete" if self._is_cut else "completed"
        return [*steps, self._tell(self.status)]

    def _tell(self, what: str) -> Step:
        return f"response.{what}", {"response": self.shown()}

    def _error(self) -> dict[str, Any] | None:
        problem = self._problem
        if problem is None or self.status == "cancelled":
            return None
        code = "invalid_prompt" if problem.type == INVALID else "server_error"
        return {
            "code": "rate_limit_exceeded" if problem.code in _RATE_CODES else code,
            "message": problem.message,
            "param": problem.param,
            "type": problem.code,
        }

    def _usage(self, usage: Usage) -> dict[str, Any]:
        cached = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0}
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": cached,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }


class ResponseEncoder:
    """The frames of one stream; those numbered up to ``after`` are left out."""

    def __init__(self, record: StoredResponse, after: int = -1) -> None:
        self._answer = Answer(record)
        self._after = after
        self._number = -1

    def queue(self) -> bytes:
        """The first frames of a background response."""
        return self._frames(self._answer.queue())

    def feed(self, event: Event) -> bytes:
        """The frames of ``event``, possibly none; those of ``finished`` end the stream."""
        return self._frames(self._answer.feed(event))

    def failed(self, problem: Problem) -> bytes:
        """The frames of a response that fails after its first byte."""
        return self._frames(self._answer.fail(problem))

    def ping(self) -> bytes:
        """An event while the model reads: clients' idle timers do not count comments.

        It has the number of the last event, so that those of a stream read again stay the same.
        """
        return self._numbered("keepalive", max(self._number, 0), {})

    def _frames(self, steps: list[Step]) -> bytes:
        return b"".join(self._frame(kind, fields) for kind, fields in steps)

    def _frame(self, kind: str, fields: dict[str, Any]) -> bytes:
        self._number += 1
        if self._number <= self._after:
            return b""
        return self._numbered(kind, self._number, fields)

    @staticmethod
    def _numbered(kind: str, number: int, fields: dict[str, Any]) -> bytes:
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
