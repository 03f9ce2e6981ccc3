"""Sample requests, submissions and events: plausible and not random."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from jobs.contract.events import Event, EventKind
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import Sampling
from jobs.settings import Settings
from jobs.storage.submitter import Submission

_numbers = itertools.count(1)


def new_job_id(prefix: str = "cmpl") -> str:
    """A job id that is unique in this run."""
    return f"{prefix}-{next(_numbers):032x}"


def settings_for(redis_url: str, folder: Path, **fields: Any) -> Settings:
    """Settings of a separate instance, independent of the environment."""
    return Settings(
        REDIS_URL=redis_url,
        state_dir=folder / "state",
        models_dir=folder / "models",
        **{"fake_engine": True, "grace_s": 0.5, **fields},
    )


def generate(text: str = "a prompt", max_tokens: int | None = 16, **fields: Any) -> GenerateRequest:
    """A greedy completion of one text; ``sampling`` fields go into ``sampling``."""
    sampling = Sampling(**{"temperature": 0.0, **fields.pop("sampling", {})})
    prompts = fields.pop("prompts", [Prompt(text=text)])
    return GenerateRequest(prompts=prompts, sampling=sampling, max_tokens=max_tokens, **fields)


def submission(request: Any = None, **fields: Any) -> Submission:
    """A submission of ``request`` (by default a completion) for model_id 0."""
    request = request or generate()
    job_id = fields.pop("job_id", None) or new_job_id()
    return Submission(
        job_id=job_id,
        model_id=fields.pop("model_id", "0"),
        request=request,
        facts=fields.pop("facts", {"model": "fake"}),
        **fields,
    )


def event(
    kind: EventKind = EventKind.CHUNK, seq: int = 1, attempt: int = 1, job: str = "j", **fields: Any
) -> Event:
    """An event of job ``j``."""
    return Event(job=job, attempt=attempt, seq=seq, kind=kind, t=1.0, **fields)
