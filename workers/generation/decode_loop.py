"""The loop that drives an engine: take commands, step, publish, retire.

It runs on the only thread that may use the engine. It never waits for Redis: its events go into
outboxes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from jobs.contract.errors import EngineError, JobCancelledError, JobError, JobTimeoutError
from jobs.contract.records import RunningJob
from workers.engines.base import (
    Engine,
    Prefill,
    PromptLogprobs,
    SequenceFailure,
    StepEvent,
    Token,
)
from workers.generation.activity import Activity, TokenCounts, running_jobs
from workers.generation.embedding import EmbeddingJob
from workers.generation.job import Choice, GenerationJob
from workers.generation.publisher import Publisher
from workers.scheduling.sharing import Sharing

_POLL_S = 0.01

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """End a job with ``error``; ``None``: without an event."""

    job_id: str
    error: JobError | None


@dataclass(frozen=True, slots=True)
class _HandBack:
    """Give a job back to its queue."""

    job_id: str


_Command = GenerationJob | EmbeddingJob | _End | _HandBack


class DecodeLoop:
    """Runs jobs with continuous batching.

    Each choice returns its slot to ``sharing`` when it ends. Embedding jobs take no slot: between
    two steps, the oldest of them embeds a few inputs. The engine computes within ``turn``.
    """

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        sharing: Sharing,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        self._engine = engine
        self._turn = turn or nullcontext()
        self._publisher = publisher
        self._sharing = sharing
        self._commands: deque[_Command] = deque()
        self._wake = threading.Event()
        self._jobs: dict[str, GenerationJob] = {}
        self._embeddings: dict[str, EmbeddingJob] = {}
        self._job_of: dict[int, GenerationJob] = {}
        self._activity = Activity()
        self._is_stopping = False
        self._progress_at = time.monotonic()

    # Called from other threads.

    def admit(self, job: GenerationJob | EmbeddingJob) -> None:
        self._send(job)
        if isinstance(job, GenerationJob) and job.job_class == "interactive":
            for other in list(self._jobs.values()):
                if other.job_class == "batch" and other.is_reading and not other.is_pinned:
                    self._interrupt(other)  # it will give way

    def end(self, job_id: str, error: JobError | None) -> None:
        """End a job early, ``error`` as in ``_End``; unknown and ended jobs are ignored."""
        self._send(_End(job_id, error))
        if (job := self._jobs.get(job_id)) is not None:
            self._interrupt(job)

    def _interrupt(self, job: GenerationJob) -> None:
        for sequence_id in job.sequence_ids:
            self._engine.interrupt(sequence_id)

    def hand_back(self, job_id: str) -> None:
        """Give a generation back to its queue, with what it has said; others are ignored."""
        self._send(_HandBack(job_id))

    def stop(self) -> None:
        """Let ``run`` return after the current step; running jobs are left as they are."""
        self._is_stopping = True
        self._wake.set()

    def wind_down(self, error: JobError | None, grace_s: float, force_s: float) -> None:
        """Wait ``grace_s`` for jobs to finish, end the rest with ``error`` (see ``end``), and stop.

        Blocks the calling thread; after ``force_s`` more it stops even if jobs are left.
        """
        self._wait_empty(grace_s)
        for job_id in self.job_ids:
            self.end(job_id, error)
        self._wait_empty(force_s)
        self.stop()

    def _wait_empty(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.num_jobs and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    @property
    def num_jobs(self) -> int:
        return len(self._jobs) + len(self._embeddings) + len(self._commands)

    @property
    def job_ids(self) -> list[str]:
        return [*self._jobs, *self._embeddings]

    @property
    def idle_s(self) -> float:
        """Seconds since the last progress while there is work; 0 without work."""
        has_jobs = self._jobs or self._embeddings
        return time.monotonic() - self._progress_at if has_jobs else 0.0

    @property
    def counts(self) -> TokenCounts:
        """Tokens of all jobs since the start."""
        return self._activity.counts(list(self._jobs.values()))

    @property
    def running_jobs(self) -> list[RunningJob]:
        """How far each job is; at most 100."""
        return running_jobs(list(self._jobs.values()), list(self._embeddings.values()))

    def _send(self, command: _Command) -> None:
        self._commands.append(command)
        self._wake.set()

    # The engine's thread.

    def run(self) -> None:
        while not self._is_stopping:
            self._take_commands()
            if not self._engine.has_work and not self._embeddings:
                self._wake.wait()
                self._wake.clear()
                continue
            if self._engine.has_work:
                self._step()
                self._end_overdue()
            if self._embeddings:
                self._embed()

    def _take_commands(self) -> None:
        while self._commands:
            command = self._commands.popleft()
            if isinstance(command, GenerationJob):
                self._start(command)
            elif isinstance(command, EmbeddingJob):
                self._progress_at = time.monotonic()
                self._embeddings[command.job_id] = command
            elif isinstance(command, _HandBack):
                self._hand_back(self._jobs.get(command.job_id))
            elif command.job_id in self._jobs:
                self._end_early(self._jobs[command.job_id], command.error)
            elif command.job_id in self._embeddings:
                self._embeddings.pop(command.job_id).end(command.error)

    def _start(self, job: GenerationJob) -> None:
        self._jobs[job.job_id] = job
        self._progress_at = time.monotonic()
        self._job_of.update(dict.fromkeys(job.choices, job))
        if job.job_class == "interactive":
            for victim in self._sharing.victims(self._jobs.values()):
                self._hand_back(self._jobs[victim.job_id])
        try:
            for choice in job.choices.values():
                self._engine.submit(choice.sequence)
        except JobError as error:
            return self._end_early(job, error)
        except Exception as error:
            log.exception("engine refused a sequence", extra={"job": job.job_id})
            return self._end_early(job, EngineError(f"the engine failed: {error}"))
        # After submit: once ``started`` is sent, an error can no longer set the HTTP status.
        job.outbox.started(job.usage)

    def _step(self) -> None:
        try:
            with self._turn:
                started_at = time.monotonic()
                events = self._engine.step()
                step_s = time.monotonic() - started_at
        except Exception as error:
            # The state of the batch is unknown then: every job in it ends; the model stays loaded.
            log.exception("engine step failed")
            for job in list(self._jobs.values()):
                self._end_early(job, EngineError(f"the engine failed: {error}"))
            return
        for event in events:
            self._handle_guarded(event)
        has_prefilled = any(isinstance(event, Prefill) for event in events)
        costly = self._sharing.note_step(self._jobs.values(), step_s, has_prefilled=has_prefilled)
        self._hand_back(None if costly is None else self._jobs[costly.job_id])
        self._progress_at = time.monotonic()
        self._publisher.notify(is_urgent=False)

    def _embed(self) -> None:
        job = next(iter(self._embeddings.values()))
        with self._turn:
            is_done = job.step(self._engine, self._note_progress)
        if is_done:
            del self._embeddings[job.job_id]
        self._note_progress()

    def _note_progress(self) -> None:
        self._progress_at = time.monotonic()

    def _handle_guarded(self, event: StepEvent) -> None:
        """Handle an event; an exception, e.g. from odd model output, ends only the event's job."""
        job = self._job_of.get(event.sequence_id)
        if job is None:
            return  # ended earlier in this very step
        try:
            self._handle(job, event)
        except Exception as error:
            log.exception("answer cannot be processed", extra={"job": job.job_id})
            if job.job_id in self._jobs:
                self._end_early(job, JobError(f"the answer cannot be processed: {error}"))

    def _handle(self, job: GenerationJob, event: StepEvent) -> None:
        if isinstance(event, Token):
            self._handle_token(job, event)
        elif isinstance(event, Prefill):
            job.note_prefill(job.choices[event.sequence_id].index, event)
        elif isinstance(event, PromptLogprobs):
            choice = job.choices[event.sequence_id]
            for text, tokens in choice.echo(event):
                job.outbox.prompt(choice.index, text, tokens)
        elif isinstance(event, SequenceFailure):
            self._end_early(job, event.to_error())

    def _handle_token(self, job: GenerationJob, token: Token) -> None:
        choice = job.choices[token.sequence_id]
        if job.show(choice, token) is not None:
            self._close_choice(job, choice, is_engine_done=token.finish is not None)

    def _close_choice(self, job: GenerationJob, choice: Choice, is_engine_done: bool) -> None:
        sequence_id = choice.sequence.sequence_id
        if not is_engine_done:
            self._engine.abort(sequence_id)
        del job.choices[sequence_id], self._job_of[sequence_id]
        self._sharing.leave(job, 1)
        if not job.choices:
            job.outbox.finish(job.usage, job.timings())
            self._forget(job)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        overdue = [job for job in self._jobs.values() if now > job.deadline]
        for job in overdue:
            self._end_early(job, JobTimeoutError("the job exceeded its time limit"))

    def _hand_back(self, job: GenerationJob | None) -> None:
        if job is not None:
            self._abort(job)
            job.outbox.hand_back()

    def _end_early(self, job: GenerationJob, error: JobError | None) -> None:
        self._abort(job)
        if isinstance(error, JobCancelledError):
            job.outbox.cancel(error, job.usage)
        elif error is not None:
            job.outbox.fail(error, job.usage)

    def _abort(self, job: GenerationJob) -> None:
        for sequence_id in job.sequence_ids:
            self._engine.abort(sequence_id)
            self._job_of.pop(sequence_id, None)
        self._forget(job)
        self._sharing.leave(job, job.num_sequences)

    def _forget(self, job: GenerationJob) -> None:
        del self._jobs[job.job_id]
        self._sharing.fair_use.end(job)
        self._activity.note_end(job)
