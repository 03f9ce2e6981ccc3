"""The jobs of a loaded model: prepared for the decode loop, or answered directly."""

from __future__ import annotations

from jobs.catalog.catalog import find_adapter
from jobs.contract.errors import ContractError
from jobs.contract.requests import CacheLimitRequest, EmbedRequest, GenerateRequest
from jobs.settings import Settings
from jobs.storage.connection import SyncRedis
from jobs.storage.event_log import read_log
from workers.generation.attempts import Attempt
from workers.generation.decode_loop import DecodeLoop
from workers.generation.embedding import build_embedding
from workers.generation.outbox import Outbox
from workers.generation.preparation import Logged, build_job, logged_choices
from workers.generation.text_jobs import TextRequest, answer
from workers.markup.output_format import OutputFormats
from workers.runtime.heartbeat import EngineMemory
from workers.runtime.loading import LoadedEngine
from workers.scheduling.sharing import Sharing


class ModelJobs:
    """Starts the jobs of a loaded model. Each consumer calls it from its own thread.

    Raises ``JobError`` for an invalid request, before the job starts.
    """

    def __init__(
        self,
        settings: Settings,
        redis: SyncRedis,
        loaded: LoadedEngine,
        loop: DecodeLoop,
        sharing: Sharing,
    ) -> None:
        self._settings = settings
        self._redis = redis
        self._engine = loaded.engine
        self._encoder = loaded.encoder
        self._prefixes = loaded.prefixes
        self._formats = OutputFormats(loaded.engine.tokenizer, loaded.encoder.template)
        self._loop = loop
        self._sharing = sharing

    def generate(self, attempt: Attempt, outbox: Outbox) -> None:
        """Start or resume a generation."""
        request = attempt.request()
        if not isinstance(request, GenerateRequest):
            raise ContractError("this queue holds generation jobs only")
        job = build_job(
            attempt,
            request,
            self._read_logged(attempt),
            outbox,
            self._engine,
            self._encoder,
            self._settings.request_timeout_s,
            self._find_adapter(request),
            self._formats,
        )
        if not job.choices:  # an earlier attempt wrote all but the terminal event
            outbox.started(job.usage)
            outbox.finish(job.usage, job.timings())
            return
        self._sharing.enter(job)
        if attempt.attempt == 1:
            self._sharing.starts.note(attempt.job_class)
        if attempt.deaths:
            # A suspect runs alone until its first output (``workers/supervision/blame.py``).
            self._sharing.slots.hold(attempt.job_id)
        self._loop.admit(job)

    def embed(self, request: EmbedRequest, outbox: Outbox, left_s: float | None = None) -> None:
        """Start an embedding job. It takes no slot. ``left_s``: time until its deadline."""
        context_length = self._engine.info.context_length
        max_run_s = self._settings.request_timeout_s
        if left_s is not None:
            max_run_s = min(max_run_s, left_s)
        job = build_embedding(
            outbox, request, self._encoder, self._prefixes, context_length, max_run_s
        )
        self._loop.admit(job)

    def memory(self) -> EngineMemory:
        """What the engine says about its memory."""
        engine = self._engine
        return EngineMemory(engine.cache_bytes, engine.prompt_cache_bytes, engine.device_bytes)

    def answer(self, request: TextRequest | CacheLimitRequest, outbox: Outbox) -> None:
        """Answer and end a job that needs no engine step."""
        if isinstance(request, CacheLimitRequest):
            self._engine.limit_cache(request.num_bytes)
            return outbox.finish()
        answer(request, self._engine.tokenizer, self._encoder, outbox)

    def _find_adapter(self, request: GenerateRequest) -> str | None:
        """The requested adapter's name on disk. Raises ``AdapterNotFoundError``."""
        if request.adapter is None:
            return None
        folder = self._settings.adapters_dir
        return find_adapter(folder, request.adapter, self._engine.info.backend).name

    def _read_logged(self, attempt: Attempt) -> dict[int, Logged]:
        """The output of earlier attempts, by choice."""
        events = read_log(self._redis, attempt.job_id) if attempt.seq else []
        return logged_choices(events)
