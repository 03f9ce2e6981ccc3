"""An embedding job in a worker: a few inputs at a time, between two steps of the engine."""

from __future__ import annotations

import logging
import math
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jobs.contract.errors import (
    ContextLengthExceededError,
    EngineError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    NoRoomError,
    UnsupportedParameterError,
)
from jobs.contract.events import Usage
from jobs.contract.requests import EmbedRequest
from workers.engines.base import Engine
from workers.generation.input_prefixes import InputPrefixes
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder

_STEP_TOKENS = 512  # about the size of a prefill chunk

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EmbeddingJob:
    """``inputs`` are token ids; ``num_done`` of them are embedded and in the outbox.

    ``dimensions``: the requested size of the vectors; ``deadline`` in ``time.monotonic`` seconds.
    """

    job_id: str
    outbox: Outbox
    inputs: list[list[int]]
    dimensions: int | None
    deadline: float
    num_done: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=sum(map(len, self.inputs)))

    def step(self, engine: Engine, on_piece: Callable[[], None]) -> bool:
        """Embed the next few inputs; True if the job has ended, finished or failed.

        ``on_piece``: see ``Engine.embed``. With no memory for it now, it waits for another step.
        """
        try:
            self._step(engine, on_piece)
        except NoRoomError as error:
            if engine.has_work:
                return False
            self.end(error)
            return True
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
        """End the job early with ``error``; ``None``: without an event."""
        if isinstance(error, JobCancelledError):
            self.outbox.cancel(error)
        elif error is not None:
            self.outbox.fail(error)

    def _step(self, engine: Engine, on_piece: Callable[[], None]) -> None:
        if time.monotonic() > self.deadline:
            raise JobTimeoutError("the job exceeded its time limit")
        for vector in engine.embed([*self._next_inputs()], None, on_piece):
            shown = vector if self.dimensions is None else _cut(vector, self.dimensions)
            self.outbox.embedding(self.num_done, struct.pack(f"<{len(shown)}f", *shown))
            self.num_done += 1

    def _next_inputs(self) -> Iterator[list[int]]:
        """The inputs of the next step: at least one, up to ``_STEP_TOKENS`` tokens."""
        num_tokens = 0
        for ids in self.inputs[self.num_done :]:
            if num_tokens and num_tokens + len(ids) > _STEP_TOKENS:
                return
            num_tokens += len(ids)
            yield ids


def _cut(vector: list[float], num_dimensions: int) -> list[float]:
    """The first dimensions, again of length 1. Raises ``UnsupportedParameterError``."""
    if num_dimensions > len(vector):
        message = f"dimensions: this model's vectors have {len(vector)} dimensions"
        raise UnsupportedParameterError(message, "dimensions")
    if num_dimensions == len(vector):
        return vector
    kept = vector[:num_dimensions]
    length = math.hypot(*kept)
    return [value / length for value in kept] if length else kept


def build_embedding(
    outbox: Outbox,
    request: EmbedRequest,
    encoder: PromptEncoder,
    prefixes: InputPrefixes,
    context_length: int,
    max_run_s: float,
) -> EmbeddingJob:
    """The job with its inputs as token ids; ``InvalidRequestError`` names the invalid input."""
    inputs = []
    for index in range(len(request.inputs)):
        name, param = _name_of(request, index)
        prompt = prefixes.add(request, index)
        try:
            ids = encoder.encode(prompt)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{name}: {error.message}", param) from error
        if request.is_truncated:
            ids = ids[:context_length]
        if len(ids) > context_length:
            message = f"{name} is too long: {len(ids)} tokens for a context of {context_length}"
            raise ContextLengthExceededError(message, param)
        inputs.append(ids)
    deadline = time.monotonic() + max_run_s
    return EmbeddingJob(outbox.job_id, outbox, inputs, request.dimensions, deadline)


def _name_of(request: EmbedRequest, index: int) -> tuple[str, str]:
    """The client's name for the input, and its parameter."""
    if request.rerank is None:
        return f"input {index}", "input"
    return ("the query", "query") if index == 0 else (f"document {index - 1}", "documents")
