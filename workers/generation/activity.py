"""What a decode loop has computed so far, for the heartbeat; nothing is done per token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.contract.records import RunningJob
from workers.generation.embedding import EmbeddingJob
from workers.generation.job import GenerationJob

_MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens since the worker's start: read, found in the prompt cache, generated; and of those
    read, those of jobs that had given way.
    """

    prefilled: int = 0
    cached: int = 0
    generated: int = 0
    reread: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.prefilled + other.prefilled,
            self.cached + other.cached,
            self.generated + other.generated,
            self.reread + other.reread,
        )


class Activity:
    """Counts of the jobs that have ended, and of those that run.

    The engine's thread notes ends; another may read. A job that ends just then may be missed once,
    so counts never fall below what was shown before.
    """

    def __init__(self) -> None:
        self._ended = TokenCounts()
        self._shown = TokenCounts()

    def note_end(self, job: GenerationJob) -> None:
        self._ended += _counts_of(job)

    def counts(self, running: Iterable[GenerationJob]) -> TokenCounts:
        """The counts of all jobs, ended and ``running``."""
        found = sum(map(_counts_of, running), self._ended)
        shown = self._shown
        self._shown = TokenCounts(
            max(found.prefilled, shown.prefilled),
            max(found.cached, shown.cached),
            max(found.generated, shown.generated),
            max(found.reread, shown.reread),
        )
        return self._shown


def running_jobs(
    generations: Iterable[GenerationJob], embeddings: Iterable[EmbeddingJob]
) -> list[RunningJob]:
    """A line per running job, at most 100."""
    lines = [_generation(job) for job in generations] + [_embedding(job) for job in embeddings]
    return lines[:_MAX_LISTED]


def _counts_of(job: GenerationJob) -> TokenCounts:
    num_read = job.num_prefilled - job.num_cached
    num_reread = num_read if job.num_yields else 0
    return TokenCounts(num_read, job.num_cached, job.num_since_start, num_reread)


def _generation(job: GenerationJob) -> RunningJob:
    return RunningJob(
        job_id=job.job_id,
        phase="prefill" if job.first_token_at is None else "decode",
        prompt_tokens=job.num_prompt_tokens,
        prefilled_tokens=job.num_prefilled,
        generated_tokens=job.num_generated,
        attempt=job.outbox.attempt,
        job_class=job.job_class,
    )


def _embedding(job: EmbeddingJob) -> RunningJob:
    lengths = [len(ids) for ids in job.inputs]
    return RunningJob(
        job_id=job.job_id,
        phase="embed",
        prompt_tokens=sum(lengths),
        prefilled_tokens=sum(lengths[: job.num_done]),
        attempt=job.outbox.attempt,
    )
