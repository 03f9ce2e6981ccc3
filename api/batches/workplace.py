"""What the work on all batches of a process shares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp

from api.execution.services import Services
from jobs.batches.line_jobs import LineJobs


@dataclass(frozen=True, slots=True)
class Workplace:
    """``app`` has the routes of the lines. ``stopping`` is set when the process is to end."""

    services: Services
    app: ASGIApp
    line_jobs: LineJobs
    stopping: asyncio.Event
