"""A worker's heartbeat, sent once a second from its own thread."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from jobs.contract.errors import ErrorInfo
from jobs.contract.records import JobClass, RunningJob, WorkerState, WorkerStatus
from jobs.contract.requests import LoadRequest
from jobs.platform.current import current_platform
from jobs.storage import names
from jobs.storage.connection import SyncRedis
from jobs.storage.desired_models import DesiredModels
from workers.engines.base import ModelInfo
from workers.generation.activity import TokenCounts
from workers.generation.decode_loop import DecodeLoop
from workers.rq_bridge.queue_consumer import QueueConsumer

_INTERVAL_S = 1.0
_LEASES_EVERY = 3  # RQ's leases last for 30 s
_CLEAN_EVERY = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine says about its memory, in bytes; see ``workers.engines.base.Engine``."""

    cache_bytes: int = 0
    prompt_cache_bytes: int = 0
    device_bytes: int = 0


class WorkerReport:
    """The content of the heartbeat. The worker's threads change it, the heartbeat reads it."""

    def __init__(self, model_id: str, desired_uid: str, worker_names: list[str]) -> None:
        self.state = WorkerState.STARTING
        self.running = 0
        self.sequences = 0
        self.memory = EngineMemory()
        self.unpublished = 0
        self.idle_s = 0.0
        self.unused_s = 0.0
        self.interactive_unused_s: float | None = None
        self.starts_per_s: dict[JobClass, float] = {}
        self.load_fraction: float | None = None
        self._counts = TokenCounts()
        self._jobs: list[RunningJob] = []
        self._model_id = model_id
        self._desired_uid = desired_uid
        self._names = worker_names
        self._load: LoadRequest | None = None
        self._info: ModelInfo | None = None
        self._path = ""
        self._error: ErrorInfo | None = None
        self._started_at = time.time()
        self._platform = current_platform()
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the interval

    def note_loading(self, load: LoadRequest) -> None:
        self._load = load
        self.state = WorkerState.LOADING

    def note_activity(self, loop: DecodeLoop | None) -> None:
        """Take the decode loop's numbers, once there is one."""
        if loop is not None:
            self.running, self.idle_s = loop.num_jobs, loop.idle_s
            self._counts, self._jobs = loop.counts, loop.running_jobs

    def note_ready(self, path: Path, info: ModelInfo) -> None:
        self._path, self._info = str(path), info
        self.load_fraction = None
        self.state = WorkerState.READY

    def note_failed(self, error: ErrorInfo) -> None:
        self._error = error
        self.state = WorkerState.FAILED

    def status(self) -> WorkerStatus:
        info = self._info
        return WorkerStatus(
            model_id=self._model_id,
            state=self.state,
            pid=os.getpid(),
            node=self._platform.node_name(),
            names=self._names,
            desired_uid=self._desired_uid,
            model_name=self._load.model_name if self._load else "",
            model_path=self._path,
            backend=self._load.backend if self._load else "",
            context_length=info.context_length if info else 0,
            vocab_size=info.vocab_size if info else 0,
            architecture=info.architecture if info else "",
            quantization=info.quantization if info else "",
            num_parameters=info.num_parameters if info else None,
            slots=info.num_slots if info else 0,
            running=self.running,
            sequences=self.sequences,
            cache_bytes=self.memory.cache_bytes,
            prompt_cache_bytes=self.memory.prompt_cache_bytes,
            unpublished=self.unpublished,
            load_fraction=self.load_fraction,
            cpu_percent=self._process.cpu_percent(),
            memory_bytes=max(self._platform.footprint_bytes(os.getpid()), self.memory.device_bytes),
            idle_s=round(self.idle_s, 3),
            unused_s=round(self.unused_s, 3),
            interactive_unused_s=self.interactive_unused_s,
            started_at=self._started_at,
            error=self._error,
            beat_at=time.time(),
            prefilled_tokens=self._counts.prefilled,
            cached_tokens=self._counts.cached,
            generated_tokens=self._counts.generated,
            reread_tokens=self._counts.reread,
            jobs=self._jobs,
            starts_per_s=self.starts_per_s,
            is_on_gpu=info.is_on_gpu if info else False,
        )


class Heartbeat(threading.Thread):
    """Writes the worker's status and renews RQ's leases. Errors are retried with the next one."""

    def __init__(
        self,
        redis: SyncRedis,
        slug: str,
        report: WorkerReport,
        consumers: list[QueueConsumer],
        measure: Callable[[], None],
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._redis = redis
        self._desired_models = DesiredModels(redis)
        self._slug = slug
        self._report = report
        self._consumers = consumers
        self._measure = measure
        self._stopping = threading.Event()

    def now(self) -> None:
        """Write the status at once, after a change of state, and wake the supervisors."""
        with contextlib.suppress(RedisError):
            self._write()
            self._desired_models.notify()

    def _write(self) -> None:
        batch = names.batch_queue(self._slug)
        unused_s = {consumer.queue.name: consumer.unused_s for consumer in self._consumers}
        self._report.unused_s = min(unused_s.values())
        interactive = [seconds for name, seconds in unused_s.items() if name != batch]
        self._report.interactive_unused_s = round(min(interactive), 3)
        self._desired_models.heartbeat(self._slug, self._report.status())

    def stop(self) -> None:
        """Write the last status and unregister the consumers from RQ."""
        self._stopping.set()
        self.now()
        for consumer in self._consumers:
            with contextlib.suppress(RedisError):
                consumer.register_death()

    def run(self) -> None:
        count = 0
        while not self._stopping.wait(_INTERVAL_S):
            count += 1
            try:
                self._measure()
                self._write()
                if count % _LEASES_EVERY == 0 or self._is_forgotten():
                    self._renew_leases(is_cleaning=count % _CLEAN_EVERY == 0)
            except RedisError as error:
                log.warning("heartbeat missed", extra={"error": str(error)})

    def _is_forgotten(self) -> bool:
        """True when Redis has lost its data, with what it knew of the consumers."""
        keys = [consumer.key for consumer in self._consumers if consumer.birth_date is not None]
        return self._redis.exists(*keys) < len(keys) if keys else False

    def _renew_leases(self, *, is_cleaning: bool) -> None:
        for consumer in self._consumers:
            if consumer.birth_date is not None:  # it has registered
                consumer.send_heartbeat()
                if is_cleaning:
                    consumer.clean()
