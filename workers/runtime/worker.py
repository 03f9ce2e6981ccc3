"""The worker process of one model_id: its threads, jobs, states and shutdown.

Threads: main (the generation consumer's RQ loop), control consumer, engine (the only one that uses
the model), publisher, bookkeeper, heartbeat, lifeline, and RQ's two command listeners.
"""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue

from redis.exceptions import RedisError

from jobs.contract.errors import (
    ContractError,
    ErrorInfo,
    JobCancelledError,
    JobError,
    ModelUnloadedError,
    NotReadyError,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.pulls import PullRequest
from jobs.contract.records import WorkerState
from jobs.contract.requests import EmbedRequest, GenerateRequest, LoadRequest, Task, UnloadRequest
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.event_log import EventWriter
from workers.engines.failures import DeviceLostError
from workers.exits import ExitCode
from workers.generation.attempts import Attempt
from workers.generation.decode_loop import DecodeLoop
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.rq_bridge.queued_job import QueuedJob
from workers.rq_bridge.taking import Order
from workers.runtime.admission import Admission
from workers.runtime.heartbeat import EngineMemory, Heartbeat, WorkerReport
from workers.runtime.loading import LoadedEngine, LoadProgress, load_engine
from workers.runtime.model_jobs import ModelJobs
from workers.runtime.slots import SlotLimiter

_FLUSH_S = 2.0

log = logging.getLogger(__name__)


class ModelWorker:
    """The parts of one worker process, run once. ``memory_bytes``: see ``EngineOptions``."""

    def __init__(
        self,
        settings: Settings,
        model_id: str,
        token: str,
        desired_uid: str,
        load_job: str,
        owner: str,
        memory_bytes: int | None = None,
    ) -> None:
        self._settings = settings
        self._memory_bytes = memory_bytes
        self._load_job = load_job
        url = settings.effective_redis_url
        slug = names.slug_of(model_id)
        # No retries in the consumers: a repeated take could take a second job.
        consumer_redis = connect(url, retries=0)
        self._redis = connect(url)
        self._slots = SlotLimiter()
        self._gen = QueueConsumer(
            names.generation_queue(slug),
            names.worker_name(slug, "gen", token),
            consumer_redis,
            self._slots.wait,
            self._admit_generation,
            lambda job_id: self._gen_admission.refuse(self._gen, job_id),
            self._stop_job,
            owner,
            order=Order("interactive", settings.aging_s, settings.fair),
        )
        self._ctl = QueueConsumer(
            names.control_queue(slug),
            names.worker_name(slug, "ctl", token),
            consumer_redis,
            self._may_take_control,
            self._admit_control,
            lambda job_id: self._ctl_admission.refuse(self._ctl, job_id),
            self._stop_job,
            owner,
            meant=[load_job, names.unload_job_id(desired_uid)],
            is_only_meant=lambda: self._jobs is None,
        )
        writer = EventWriter(connect(url, retries=0), settings.log_ttl_s, settings.failure_ttl_s)
        self._books = Bookkeeper()
        self._publisher = Publisher(
            writer,
            self._on_refused,
            self._on_settled,
            on_started=self._books.begin,
            on_written=self._on_written,
        )
        parts = connect(url, retries=0), self._publisher, self._books, self._stop_job
        self._gen_admission, self._ctl_admission = Admission(*parts), Admission(*parts)
        self._report = WorkerReport(model_id, desired_uid, [self._gen.name, self._ctl.name])
        self._heartbeat = Heartbeat(
            self._redis, slug, self._report, [self._gen, self._ctl], self._measure
        )
        engine = threading.Thread(target=self._drive_engine, name="engine", daemon=True)
        self._engine_thread = engine
        self._engine_work: SimpleQueue[tuple[LoadRequest, Outbox]] = SimpleQueue()
        self._jobs: ModelJobs | None = None
        self._loop: DecodeLoop | None = None
        self._load_done = threading.Event()
        self._exit_code: ExitCode | None = None
        self._exit_lock = threading.Lock()

    def run(self) -> ExitCode:
        """Run the worker. It does not return: the exit thread ends the process."""
        self._publisher.start()
        self._books.start()
        self._heartbeat.start()
        self._engine_thread.start()
        threading.Thread(
            target=self._work, args=(self._ctl,), name="control-consumer", daemon=True
        ).start()
        self._work(self._gen)
        threading.Event().wait()  # the exit thread ends the process
        raise AssertionError("unreachable")

    def _work(self, consumer: QueueConsumer) -> None:
        """Run a consumer's loop. End the process if the loop ends unexpectedly."""
        try:
            consumer.work()
        except Exception:
            log.exception("consumer failed", extra={"consumer": consumer.name})
        if self._exit_code is None:
            log.error("consumer ended unexpectedly", extra={"consumer": consumer.name})
            os._exit(ExitCode.CRASHED)

    def request_exit(self, code: ExitCode, error: JobError | None, grace_s: float = 0.0) -> None:
        """Start the shutdown, once. Returns at once. Any thread or signal handler may call it.

        ``error`` ends the running jobs; ``None`` leaves them to the next worker.
        """
        with self._exit_lock:
            if self._exit_code is not None:
                return
            self._exit_code = code
        threading.Thread(
            target=self._exit, args=(code, error, grace_s), name="exit", daemon=True
        ).start()

    # The generation consumer.

    def _admit_generation(self, job: QueuedJob) -> None:
        self._gen_admission.admit(self._gen, job, Task.GENERATE, self._start_generation)

    def _start_generation(self, attempt: Attempt, outbox: Outbox) -> None:
        self._ready_jobs().generate(attempt, outbox)

    def _ready_jobs(self) -> ModelJobs:
        if self._jobs is None:
            raise NotReadyError("the model is not loaded")
        return self._jobs

    # The control consumer.

    def _may_take_control(self) -> bool:
        """Called before each take. Without a load job the worker exits."""
        if self._report.state is WorkerState.STARTING and self._is_load_gone():
            self.request_exit(ExitCode.NOTHING_TO_LOAD, None)
            return False
        return True

    def _is_load_gone(self) -> bool:
        """Whether the load job has ended, for instance by an unload, or is lost."""
        try:
            status = self._redis.hget(names.job_key(self._load_job), "status")
        except RedisError:
            return False
        return status not in (b"queued", b"running")

    def _admit_control(self, job: QueuedJob) -> None:
        self._ctl_admission.admit(self._ctl, job, None, self._dispatch_control)

    def _dispatch_control(self, attempt: Attempt, outbox: Outbox) -> None:
        request = attempt.request()
        outbox.started()
        match request:
            case LoadRequest():
                self._load(request, outbox)
            case EmbedRequest():
                self._ready_jobs().embed(request, outbox)
            case UnloadRequest():
                # The job stays claimed until the process ends. Then the supervisor finishes it.
                self.request_exit(ExitCode.UNLOADED, ModelUnloadedError("the model was unloaded"))
            case GenerateRequest() | PullRequest():
                raise ContractError("this queue holds control jobs only")
            case _:
                self._ready_jobs().answer(request, outbox)

    def _load(self, request: LoadRequest, outbox: Outbox) -> None:
        """Let the engine's thread load, and wait: later jobs on this queue need the model."""
        if self._jobs is not None:
            raise ContractError("this worker already has a model")
        self._engine_work.put((request, outbox))
        self._load_done.wait()

    # The engine's thread.

    def _drive_engine(self) -> None:
        request, outbox = self._engine_work.get()
        self._report.note_loading(request)
        try:
            progress = LoadProgress(outbox, self._report)
            loaded = load_engine(self._settings, request, progress, self._memory_bytes)
        except JobError as error:
            return self._fail_load(error.to_info())
        except Exception as error:
            log.exception("the model could not be loaded")
            message = f"{type(error).__name__}: {error}"
            return self._fail_load(ErrorInfo("model_load_failed", message))
        self._go_ready(loaded)
        outbox.finish()
        self._load_done.set()
        try:
            assert self._loop is not None
            self._loop.run()
            loaded.engine.close()
        except DeviceLostError as error:
            # At once: the publisher must not write, the engine not keep, what may be wrong.
            log.critical("the GPU failed: %s", error)
            os._exit(ExitCode.DEVICE_LOST)
        except Exception:
            log.exception("decode loop failed")
            os._exit(ExitCode.CRASHED)

    def _go_ready(self, loaded: LoadedEngine) -> None:
        self._loop = DecodeLoop(loaded.engine, self._publisher, self._slots, loaded.turn)
        self._jobs = ModelJobs(self._settings, self._redis, loaded, self._loop, self._slots)
        self._report.note_ready(loaded.path, loaded.engine.info)
        self._heartbeat.now()
        self._slots.open(loaded.engine.info.num_slots)

    def _fail_load(self, error: ErrorInfo) -> None:
        """Keep the load job claimed: the supervisor fails it after this process has ended."""
        self._report.note_failed(error)
        self.request_exit(ExitCode.LOAD_FAILED, JobError.from_info(error))

    # Ends of jobs.

    def _stop_job(self, job_id: str, reason: str) -> None:
        self._gen_admission.note_cancel(job_id, reason)
        self._ctl_admission.note_cancel(job_id, reason)
        if self._loop is not None:
            self._loop.end(job_id, JobCancelledError(reason))

    def _on_written(self, event: Event) -> None:
        if event.kind is EventKind.CHUNK:
            self._slots.release(event.job)

    def _on_refused(self, job_id: str) -> None:
        log.warning("events of the job are refused, dropping it", extra={"job": job_id})
        self._slots.release(job_id)
        if self._loop is not None:
            self._loop.end(job_id, None)
        self._books.drop(job_id)

    def _on_settled(self, event: Event, is_end: bool) -> None:
        self._slots.release(event.job)
        self._books.close(event, is_end=is_end)

    def _measure(self) -> None:
        """Update the numbers of the heartbeat."""
        loop = self._loop
        self._report.sequences = self._slots.taken
        self._report.memory = self._jobs.memory() if self._jobs else EngineMemory()
        self._report.note_activity(loop)
        self._report.unpublished = self._publisher.num_unpublished

    def _exit(self, code: ExitCode, error: JobError | None, grace_s: float) -> None:
        """Stop taking jobs, end running ones, flush events and records, and end the process."""
        has_failed = code is ExitCode.LOAD_FAILED
        self._report.state = WorkerState.FAILED if has_failed else WorkerState.STOPPING
        self._slots.close()
        for consumer in (self._gen, self._ctl):
            consumer.request_consumer_stop()
        if self._loop is not None:
            self._loop.wind_down(error, grace_s, _FLUSH_S)
        self._publisher.stop(_FLUSH_S)
        self._books.stop(_FLUSH_S)
        self._heartbeat.stop()
        if self._loop is not None:
            self._engine_thread.join(_FLUSH_S)  # it saves the prompt cache and frees the GPU
        # Without waiting for consumers blocked in Redis: recovery returns what they take now.
        os._exit(code)
