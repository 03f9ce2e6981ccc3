"""One embeddings job inside a worker: its inputs, a few at a time between the engine's steps."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.contract.errors import (
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    UnsupportedParameterError,
)
from jobs.contract.events import Usage
from jobs.contract.requests import EmbedRequest
from workers.engines.base import Engine
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder

_STEP_TOKENS = 512  # about what a chunk of prefill has

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EmbeddingJob:
    """``inputs`` are token ids; ``num_done`` of them have been embedded and sent."""

    job_id: str
    outbox: Outbox
    inputs: list[list[int]]
    dimensions: int | None
    deadline: float
    num_done: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=sum(map(len, self.inputs)))

    def step(self, engine: Engine) -> bool:
        """Embed the next few inputs; True when the job has ended, well or badly."""
        try:
            self._step(engine)
        except JobError as error:
            self.end(error)
            return True
        except Exception as error:
            log.exception("embedding failed", extra={"job": self.job_id})
            self.end(EngineError(f"the engine failed: {error}"))
            return True
        if self.num_done < len(self.inputs):
            return False
        self.outbox.finish(self.usage)
        return True

    def end(self, error: JobError | None) -> None:
        """Say why the job ends before its time; ``None``: without a word."""
        if isinstance(error, JobCancelledError):
            self.outbox.cancel(error)
        elif error is not None:
            self.outbox.fail(error)

    def _step(self, engine: Engine) -> None:
        if time.monotonic() > self.deadline:
            raise JobTimeoutError("the job ran longer than it may")
        for vector in engine.embed([*self._next_inputs()], None):
            if self.dimensions not in (None, len(vector)):
                message = f"dimensions: this model's vectors have {len(vector)}"
                raise UnsupportedParameterError(message, "dimensions")
            self.outbox.embedding(self.num_done, struct.pack(f"<{len(vector)}f", *vector))
            self.num_done += 1

    def _next_inputs(self) -> Iterator[list[int]]:
        """At least one; no more than a step may hold."""
        num_tokens = 0
        for ids in self.inputs[self.num_done :]:
            if num_tokens and num_tokens + len(ids) > _STEP_TOKENS:
                return
            num_tokens += len(ids)
            yield ids


def build_embedding(
    outbox: Outbox,
    request: EmbedRequest,
    encoder: PromptEncoder,
    context_length: int,
    max_run_s: float,
) -> EmbeddingJob:
    """The job with its inputs as token ids; ``InvalidRequestError`` names the one at fault."""
    inputs = []
    for index, prompt in enumerate(request.inputs):
        name, param = _name_of(request, index)
        try:
            ids = encoder.encode(prompt)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{name}: {error.message}", param) from error
        if len(ids) > context_length:
            message = f"{name} is too large: {len(ids)} tokens for a context of {context_length}"
            raise ContextLengthExceededError(message, param)
        inputs.append(ids)
    deadline = time.monotonic() + max_run_s
    return EmbeddingJob(outbox.job_id, outbox, inputs, request.dimensions, deadline)


def _name_of(request: EmbedRequest, index: int) -> tuple[str, str]:
    """What the client calls that input, and its parameter."""
    if request.rerank is None:
        return f"input {index}", "input"
    return ("the query", "query") if index == 0 else (f"document {index - 1}", "documents")
