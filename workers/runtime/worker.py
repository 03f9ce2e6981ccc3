"""The worker process of one model_id: its threads, jobs, states and shutdown.

Threads: main (the RQ loop of the interactive jobs' consumer), batch consumer, control consumer,
engine (the only one that uses the model), publisher, bookkeeper, heartbeat, lifeline, and the three
command listeners of RQ.
"""

from __future__ import annotations

import logging
import os
import threading

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
from jobs.contract.requests import EmbedRequest, GenerateRequest, LoadRequest, UnloadRequest
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import connect
from jobs.storage.event_log import EventWriter
from workers.exits import ExitCode
from workers.generation.attempts import Attempt
from workers.generation.decode_loop import DecodeLoop
from workers.generation.outbox import Outbox
from workers.generation.publisher import Publisher
from workers.rq_bridge.bookkeeper import Bookkeeper
from workers.rq_bridge.queue_consumer import QueueConsumer
from workers.runtime.engine_thread import EngineThread
from workers.runtime.heartbeat import EngineMemory, Heartbeat, WorkerReport
from workers.runtime.lane import Lanes
from workers.runtime.loading import LoadedEngine, LoadProgress, load_engine
from workers.runtime.model_jobs import ModelJobs
from workers.scheduling.sharing import Sharing
from workers.scheduling.slots import SlotLimiter

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
        slug = names.slug_of(model_id)
        self._redis = connect(settings.effective_redis_url)
        self._slots = SlotLimiter(settings.batch_starve_s, self._has_batch_waiting)
        self._sharing = Sharing(
            self._slots,
            settings.batch_slowdown,
            settings.batch_quantum,
            settings.fair_output_weight,
        )
        self._books = Bookkeeper()
        self._publisher = self._new_publisher()
        self._engine = EngineThread(self._load_model, self._build, self._go_ready, self._fail_load)
        lanes = Lanes(
            settings,
            slug,
            token,
            owner,
            self._publisher,
            self._books,
            self._sharing,
            self._stop_job,
            self._hand_back,
        )
        self._gen = lanes.generation("interactive", self._start_generation)
        self._batch = lanes.generation("batch", self._start_generation)
        self._ctl = lanes.control(
            self._dispatch_control,
            self._may_take_control,
            meant=[load_job, names.unload_job_id(desired_uid)],
            is_only_meant=lambda: self._engine.jobs is None,
        )
        self._lanes = [self._gen, self._batch, self._ctl]
        consumers = [lane.consumer for lane in self._lanes]
        self._report = WorkerReport(model_id, desired_uid, [one.name for one in consumers])
        self._heartbeat = Heartbeat(self._redis, slug, self._report, consumers, self._measure)
        self._exit_code: ExitCode | None = None
        self._exit_lock = threading.Lock()

    def _new_publisher(self) -> Publisher:
        settings = self._settings
        redis = connect(settings.effective_redis_url, retries=0)
        return Publisher(
            EventWriter(redis, settings.log_ttl_s, settings.failure_ttl_s),
            self._on_refused,
            self._on_settled,
            on_started=self._books.begin,
            on_written=self._on_written,
            on_handed_back=self._on_handed_back,
        )

    def run(self) -> ExitCode:
        """Run the worker. It does not return: the exit thread ends the process."""
        self._publisher.start()
        self._books.start()
        self._heartbeat.start()
        self._engine.start()
        self._ctl.start_thread(self._work, "control-consumer")
        self._batch.start_thread(self._work, "batch-consumer")
        self._work(self._gen.consumer)
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

    # The consumers of generations.

    def _has_batch_waiting(self) -> bool:
        """Whether a batch job waits, as far as Redis says."""
        try:
            return self._batch.consumer.queue.count > 0
        except RedisError:
            return False

    def _start_generation(self, attempt: Attempt, outbox: Outbox) -> None:
        self._ready_jobs().generate(attempt, outbox)

    def _ready_jobs(self) -> ModelJobs:
        if self._engine.jobs is None:
            raise NotReadyError("the model is not loaded")
        return self._engine.jobs

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

    def _dispatch_control(self, attempt: Attempt, outbox: Outbox) -> None:
        request = attempt.request()
        outbox.started()
        match request:
            case LoadRequest():
                self._engine.load(request, outbox)
            case EmbedRequest():
                self._ready_jobs().embed(request, outbox, attempt.left_s)
            case UnloadRequest():
                # The job stays claimed until the process ends. Then the supervisor finishes it.
                self.request_exit(ExitCode.UNLOADED, ModelUnloadedError("the model was unloaded"))
            case GenerateRequest() | PullRequest():
                raise ContractError("this queue holds control jobs only")
            case _:
                self._ready_jobs().answer(request, outbox)

    # The engine's thread.

    def _load_model(self, request: LoadRequest, outbox: Outbox) -> LoadedEngine:
        self._report.note_loading(request)
        progress = LoadProgress(outbox, self._report)
        return load_engine(self._settings, request, progress, self._memory_bytes)

    def _build(self, loaded: LoadedEngine) -> tuple[DecodeLoop, ModelJobs]:
        loop = DecodeLoop(loaded.engine, self._publisher, self._sharing, loaded.turn)
        jobs = ModelJobs(self._settings, self._redis, loaded, loop, self._sharing)
        return loop, jobs

    def _go_ready(self, loaded: LoadedEngine) -> None:
        self._report.note_ready(loaded.path, loaded.engine.info)
        self._heartbeat.now()
        self._slots.open(loaded.engine.info.num_slots)

    def _fail_load(self, error: ErrorInfo) -> None:
        """Keep the load job claimed: the supervisor fails it after this process has ended."""
        self._report.note_failed(error)
        self.request_exit(ExitCode.LOAD_FAILED, JobError.from_info(error))

    # Ends of jobs.

    def _stop_job(self, job_id: str, reason: str) -> None:
        for lane in self._lanes:
            lane.admission.note_cancel(job_id, reason)
        if self._engine.loop is not None:
            self._engine.loop.end(job_id, JobCancelledError(reason))

    def _hand_back(self, job_id: str) -> None:
        if self._engine.loop is not None:
            self._engine.loop.hand_back(job_id)

    def _on_handed_back(self, outbox: Outbox) -> None:
        self._slots.release(outbox.job_id)
        self._books.hand_back(
            outbox.job_id,
            outbox.attempt,
            on_cancelled=lambda reason: outbox.cancel(JobCancelledError(reason)),
        )

    def _on_written(self, event: Event) -> None:
        if event.kind is EventKind.CHUNK:
            self._slots.release(event.job)

    def _on_refused(self, job_id: str) -> None:
        log.warning("events of the job are refused, dropping it", extra={"job": job_id})
        self._slots.release(job_id)
        if self._engine.loop is not None:
            self._engine.loop.end(job_id, None)
        self._books.drop(job_id)

    def _on_settled(self, event: Event, is_end: bool) -> None:
        self._slots.release(event.job)
        self._books.close(event, is_end=is_end)

    def _measure(self) -> None:
        """Update the numbers of the heartbeat."""
        loop = self._engine.loop
        self._report.sequences = self._slots.taken
        self._report.starts_per_s = self._sharing.starts.per_s()
        self._report.memory = self._engine.jobs.memory() if self._engine.jobs else EngineMemory()
        self._report.note_activity(loop)
        self._report.unpublished = self._publisher.num_unpublished

    def _exit(self, code: ExitCode, error: JobError | None, grace_s: float) -> None:
        """Stop taking jobs, end running ones, flush events and records, and end the process."""
        has_failed = code is ExitCode.LOAD_FAILED
        self._report.state = WorkerState.FAILED if has_failed else WorkerState.STOPPING
        self._slots.close()
        for lane in self._lanes:
            lane.consumer.request_consumer_stop()
        if self._engine.loop is not None:
            self._engine.loop.wind_down(error, grace_s, _FLUSH_S)
        self._publisher.stop(_FLUSH_S)
        self._books.stop(_FLUSH_S)
        self._heartbeat.stop()
        if self._engine.loop is not None:
            self._engine.join(_FLUSH_S)  # it saves the prompt cache and frees the GPU
        # Without waiting for consumers blocked in Redis: recovery returns what they take now.
        os._exit(code)
