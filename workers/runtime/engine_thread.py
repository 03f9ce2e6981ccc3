"""The only thread that uses the model: it loads it, then runs the decode loop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from jobs.contract.errors import ContractError, ErrorInfo, JobError
from jobs.contract.requests import LoadRequest
from workers.engines.failures import DeviceLostError
from workers.exits import ExitCode
from workers.generation.decode_loop import DecodeLoop
from workers.generation.outbox import Outbox
from workers.runtime.loading import LoadedEngine
from workers.runtime.model_jobs import ModelJobs

log = logging.getLogger(__name__)


class EngineThread(threading.Thread):
    """Waits for one load, and ends the process if the engine fails after it.

    ``load_model(request, outbox)`` loads. ``build(loaded)`` returns what runs jobs on the model,
    ``on_ready(loaded)`` lets them in. ``on_failed(error)``: the model could not be loaded.
    """

    def __init__(
        self,
        load_model: Callable[[LoadRequest, Outbox], LoadedEngine],
        build: Callable[[LoadedEngine], tuple[DecodeLoop, ModelJobs]],
        on_ready: Callable[[LoadedEngine], None],
        on_failed: Callable[[ErrorInfo], None],
    ) -> None:
        super().__init__(name="engine", daemon=True)
        self.loop: DecodeLoop | None = None
        self.jobs: ModelJobs | None = None
        self._load_model = load_model
        self._build = build
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._work: SimpleQueue[tuple[LoadRequest, Outbox]] = SimpleQueue()
        self._load_done = threading.Event()

    def load(self, request: LoadRequest, outbox: Outbox) -> None:
        """Load the model, and wait: later jobs on this queue need it. Any thread may call it."""
        if self.jobs is not None:
            raise ContractError("this worker already has a model")
        self._work.put((request, outbox))
        self._load_done.wait()

    def run(self) -> None:
        request, outbox = self._work.get()
        try:
            loaded = self._load_model(request, outbox)
        except JobError as error:
            return self._on_failed(error.to_info())
        except Exception as error:
            log.exception("the model could not be loaded")
            message = f"{type(error).__name__}: {error}"
            return self._on_failed(ErrorInfo("model_load_failed", message))
        self.loop, self.jobs = self._build(loaded)
        self._on_ready(loaded)
        outbox.finish()
        self._load_done.set()
        try:
            self.loop.run()
            loaded.engine.close()
        except DeviceLostError as error:
            # At once: the publisher must not write, the engine not keep, what may be wrong.
            log.critical("the GPU failed: %s", error)
            os._exit(ExitCode.DEVICE_LOST)
        except Exception:
            log.exception("decode loop failed")
            os._exit(ExitCode.CRASHED)
