"""Processor time of this server by part, of which the engine is one.

A worker's engine time is that of its busiest threads, as many as llama.cpp uses. The time of its
other threads (publisher, consumers, heartbeats) counts as outside the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.instance import Instance

API_MS, REDIS_MS, WORKER_MS, OUTSIDE_MS = (
    f"{part} ms/token" for part in ("API", "Redis", "worker beside engine", "outside the engine")
)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Processor seconds so far: of the API, of Redis, and of each thread of the workers."""

    api_s: float
    redis_s: float
    threads_s: dict[int, float]

    @classmethod
    def of(cls, instance: Instance) -> CpuTime:
        return cls(
            sum(_threads_s(instance.api_processes).values()),
            sum(_threads_s(instance.redis_processes).values()),
            _threads_s(instance.workers),
        )

    def per_token(
        self, earlier: CpuTime, num_tokens: int, num_engine_threads: int
    ) -> dict[str, float]:
        """Milliseconds per token since ``earlier``, by part."""
        used = sorted(
            seconds - earlier.threads_s.get(thread, 0.0)
            for thread, seconds in self.threads_s.items()
        )
        parts = {
            API_MS: self.api_s - earlier.api_s,
            REDIS_MS: self.redis_s - earlier.redis_s,
            WORKER_MS: sum(used[:-num_engine_threads]),
        }
        by_token = {name: seconds * 1000 / num_tokens for name, seconds in parts.items()}
        return {**by_token, OUTSIDE_MS: sum(by_token.values())}


def _threads_s(processes: Iterable[psutil.Process]) -> dict[int, float]:
    """Thread id -> seconds. On Linux from a file with nanoseconds; else psutil's 10 ms."""
    return {
        thread.id: _exact_s(process.pid, thread.id) or thread.user_time + thread.system_time
        for process in processes
        for thread in process.threads()
    }


def _exact_s(pid: int, thread: int) -> float | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    return None
