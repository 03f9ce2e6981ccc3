"""A decode loop on the fake engine, in a thread; its events are kept in memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.contract.events import Event
from jobs.contract.requests import GenerateRequest
from tests.helpers.waiting import wait_until
from workers.engines.base import Engine, EngineOptions
from workers.engines.fake import FakeEngine, open_fake
from workers.generation.attempts import Attempt
from workers.generation.decode_loop import DecodeLoop
from workers.generation.job import GenerationJob
from workers.generation.outbox import Outbox
from workers.generation.preparation import Logged, build_job, logged_choices
from workers.generation.prompts import PromptEncoder
from workers.generation.publisher import Publisher
from workers.markup.output_format import OutputFormats
from workers.scheduling.sharing import Sharing
from workers.scheduling.slots import SlotLimiter


class MemoryWriter:
    """Replaces ``EventWriter``; refuses jobs on request, and fails while ``is_away``."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.offered: list[Event] = []
        self.refused: set[str] = set()
        self.is_away = False

    def send(self, events: Sequence[Event]) -> Any:
        try:
            taken = self.append(events)
        except RedisConnectionError:
            return SimpleNamespace(wait=lambda: self.append(events))
        return SimpleNamespace(wait=lambda: taken)

    def append(self, events: Sequence[Event]) -> list[bool]:
        self._offer(events)
        taken = [event.job not in self.refused for event in events]
        self.events += [event for event, ok in zip(events, taken, strict=True) if ok]
        return taken

    def settle(self, event: Event) -> bool:
        """A job that was returned to its queue accepts an end of its old attempt, as in Redis."""
        self._offer([event])
        self.events.append(event)
        return True

    def _offer(self, events: Sequence[Event]) -> None:
        self.offered += events
        if self.is_away:
            raise RedisConnectionError("away")

    def of(self, job_id: str) -> list[Event]:
        return [event for event in self.events if event.job == job_id]


def fake_engine(slots: int = 8, context_length: int = 8192, step_ms: int = 0) -> FakeEngine:
    """The fake engine, by default without delays."""
    options = EngineOptions(num_slots=slots, context_length=context_length)
    return open_fake(Path(f"fake-{step_ms}ms" if step_ms else "fake"), options, lambda _: None)


class _Pause(AbstractContextManager[None]):
    """A pause before each step of the engine."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._seconds:
            time.sleep(self._seconds)

    def __exit__(self, *error: object) -> None:
        pass


class LoopRig:
    """``start`` admits a request as a job; its events are in ``writer``."""

    def __init__(self, engine: Engine, step_pause_s: float = 0.0) -> None:
        self.engine = engine
        self.slots = SlotLimiter()
        self.slots.open(engine.info.num_slots)
        self.writer = MemoryWriter()
        self.refused: list[str] = []
        self.settled: list[tuple[Event, bool]] = []
        self.handed_back: list[str] = []
        self.publisher = Publisher(
            self.writer,
            self._on_refused,
            lambda event, is_end: self.settled.append((event, is_end)),
            on_handed_back=lambda outbox: self.handed_back.append(outbox.job_id),
        )
        self.sharing = Sharing(self.slots)
        self.loop = DecodeLoop(engine, self.publisher, self.sharing, _Pause(step_pause_s))
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self._encoder = PromptEncoder(engine.tokenizer, None)
        self._forms = OutputFormats(engine.tokenizer, self._encoder.template)
        self._numbers = itertools.count(1)

    def _on_refused(self, job_id: str) -> None:
        self.refused.append(job_id)
        self.loop.end(job_id, None)

    def build(
        self,
        request: GenerateRequest,
        max_run_s: float = 60.0,
        logged: dict[int, Logged] | None = None,
        attempt: Attempt | None = None,
    ) -> GenerationJob:
        attempt = attempt or Attempt(f"job-{next(self._numbers)}", 1, 0, b"", 0.0)
        outbox = Outbox(self.publisher, attempt.job_id, attempt.attempt, attempt.seq)
        return build_job(
            attempt,
            request,
            logged or {},
            outbox,
            self.engine,
            self._encoder,
            max_run_s,
            formats=self._forms,
        )

    def start(
        self,
        request: GenerateRequest,
        max_run_s: float = 60.0,
        logged: dict[int, Logged] | None = None,
    ) -> str:
        job = self.build(request, max_run_s, logged)
        self.sharing.enter(job)
        self.loop.admit(job)
        return job.job_id

    def start_again(self, job_id: str, request: GenerateRequest) -> None:
        """The next attempt of a job that was handed back; it continues from its log."""
        found = self.writer.of(job_id)
        seq, attempt = found[-1].seq, found[-1].attempt + 1
        opened = Attempt(job_id, attempt, seq, b"", 0.0, yields=attempt - 1)
        job = self.build(request, logged=logged_choices(found), attempt=opened)
        if not job.choices:
            return job.outbox.finish(job.usage, job.timings())
        self.sharing.enter(job)
        self.loop.admit(job)

    def wait_ended(self, job_id: str) -> list[Event]:
        def ended() -> list[Event]:
            found = self.writer.of(job_id)
            return found if found and found[-1].is_terminal else []

        return wait_until(ended, f"{job_id} ends")

    def wait_tokens(self, job_id: str, count: int = 1) -> None:
        def has_tokens() -> bool:
            return sum(len(event.token_ids) for event in self.writer.of(job_id)) >= count

        wait_until(has_tokens, f"{job_id} has {count} tokens")


@contextmanager
def running_loop(engine: Engine | None = None, step_pause_s: float = 0.0) -> Iterator[LoopRig]:
    """A loop that runs until the block ends; fails if it has ended before."""
    rig = LoopRig(engine or fake_engine(), step_pause_s)
    rig.publisher.start()
    rig.thread.start()
    try:
        yield rig
        assert rig.thread.is_alive(), "the loop has ended"
    finally:
        rig.loop.stop()
        rig.thread.join(20)
        rig.writer.is_away = False
        rig.publisher.stop(20)
