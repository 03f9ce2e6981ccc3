"""Starts the worker of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs.contract.errors import WorkerLostError
from jobs.contract.records import DesiredModel
from workers.supervision.desired_state import LoadJobs
from workers.supervision.recovery import Recovery
from workers.supervision.restarts import RestartPolicy
from workers.supervision.worker_process import Child, Reservation

log = logging.getLogger(__name__)


class Starter:
    """``owner()``: this supervisor, as in the locks. ``on_exit(child)``: see ``Child``."""

    def __init__(
        self,
        recovery: Recovery,
        load_jobs: LoadJobs,
        restarts: RestartPolicy,
        owner: Callable[[], str],
        on_exit: Callable[[Child], None],
    ) -> None:
        self._recovery = recovery
        self._load_jobs = load_jobs
        self._restarts = restarts
        self._owner = owner
        self._on_exit = on_exit

    def start(self, slug: str, desired: DesiredModel, reservation: Reservation) -> Child | None:
        """The started worker. ``None`` if the model changed meanwhile, or no process can start."""
        self._settle_leftover(slug)
        ready = self._load_jobs.ensure(slug, desired)
        if ready is None:
            return None  # the next tick handles it
        try:
            child = Child(slug, ready, self._owner(), self._on_exit, reservation)
        except OSError as error:
            self._restarts.note_failed_start(slug)
            log.error("worker cannot be started", extra={"slug": slug, "error": str(error)})
            return None
        self._restarts.note_start(slug)
        extra = {"slug": slug, "model": desired.model_id, "pid": child.pid}
        log.info("worker started", extra=extra)
        return child

    def _settle_leftover(self, slug: str) -> None:
        """Settle the jobs of workers of an earlier supervisor or another node.

        Their lifelines have ended them, or they are unreachable. No job is suspected of that.
        """
        lost = WorkerLostError("the worker of the model died with its supervisor")
        self._recovery.settle_jobs_of(slug, None, lost, has_crashed=True)
