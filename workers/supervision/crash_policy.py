"""What happens after a worker's death: to its jobs, to its model, and to its restart."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs.contract.errors import (
    ContractError,
    JobError,
    JobTimeoutError,
    ModelLoadError,
    ModelUnloadedError,
    ShuttingDownError,
    WorkerLostError,
)
from jobs.contract.records import DesiredModel, WorkerState, WorkerStatus
from jobs.storage import names
from jobs.storage.desired_models import DesiredModels
from workers.exits import ExitCode
from workers.supervision.recovery import MAX_DEATHS, Recovery
from workers.supervision.restarts import RestartPolicy
from workers.supervision.watchdog import StalledOnGpuError
from workers.supervision.worker_process import Child, describe_exit

log = logging.getLogger(__name__)


class CrashPolicy:
    """Handles the deaths of workers. Calls may be repeated until Redis accepts them.

    ``note_load_failure(desired, error)`` remembers why a model that a request asked for failed.
    ``may_retry(child)``: its load failed for lack of memory, and there will be more of it.
    """

    def __init__(
        self,
        desired_models: DesiredModels,
        recovery: Recovery,
        restarts: RestartPolicy,
        note_load_failure: Callable[[DesiredModel, JobError], None] = lambda *_: None,
        may_retry: Callable[[Child], bool] = lambda _: False,
    ) -> None:
        self._desired_models = desired_models
        self._recovery = recovery
        self._restarts = restarts
        self._note_load_failure = note_load_failure
        self._may_retry = may_retry
        self._failures: dict[str, str] = {}

    def last_failure(self, slug: str) -> str | None:
        """Why the model's last load failed, ``None`` if it has been ready since."""
        return self._failures.get(slug)

    def refuse(
        self, slug: str, desired: DesiredModel, error: JobError, *, spares_batch: bool = False
    ) -> None:
        """End the jobs that wait for a model that has no process and is not started.

        A model that was never ready is not desired any more, any other is parked, and so is one
        whose jobs of the class batch are spared.
        """
        self._restarts.forget(slug)
        is_kept = spares_batch and self._recovery.has_batch_jobs(slug)
        if desired.was_ready or is_kept:
            self._desired_models.change(slug, desired.uid, is_parked=True)
            return self._recovery.end_all_waiting(slug, error, spares_batch=spares_batch)
        self._remove_desired(desired)
        self._recovery.end_waiting([desired.load_job], error)
        self.drain(slug, error)

    def settle(self, child: Child) -> None:
        """Settle the jobs of a child that ended, by its exit code and whether it is desired."""
        code = child.exit_code
        assert code is not None
        desired = self._current_desired(child)
        log.info("worker ended", extra={"slug": child.slug, "how": describe_exit(code)})
        child.last_status = child.last_status or self._desired_models.statuses([child.slug]).get(
            child.slug
        )
        # Before the jobs: a client that sees the end of an unload must not see the worker.
        self._desired_models.forget_status(child.slug)
        if desired is not None:  # it may have become ready since the last tick
            desired = self.note_ready(desired, child.last_status)
        self._settle_jobs(child, desired, code)

    def _settle_jobs(self, child: Child, desired: DesiredModel | None, code: int) -> None:
        if desired is None:
            self._end_all(child, ModelUnloadedError("the model was unloaded"))
        elif code == ExitCode.LOAD_FAILED:
            self._handle_failed_load(child, desired)
        elif code in (ExitCode.STOPPED, ExitCode.NOTHING_TO_LOAD):
            stopped = ShuttingDownError("the worker was stopped")
            self._recovery.settle_jobs_of(
                child.slug, child.worker_names, stopped, has_crashed=False
            )
        else:
            self._handle_crash(child, desired, code)

    def _current_desired(self, child: Child) -> DesiredModel | None:
        """The child's model if it is still desired. An unreadable entry is taken to be it."""
        try:
            desired = self._desired_models.get(child.slug)
        except ContractError:
            return child.desired
        return desired if desired is not None and desired.uid == child.desired.uid else None

    def note_ready(self, desired: DesiredModel, status: WorkerStatus | None) -> DesiredModel:
        """Set ``was_ready`` once the worker has reported ready. Returns the current entry."""
        is_ready = status is not None and status.state is WorkerState.READY
        if is_ready:
            self._failures.pop(names.slug_of(desired.model_id), None)
        if desired.was_ready or status is None or not is_ready or status.desired_uid != desired.uid:
            return desired
        try:
            marked = self._desired_models.change(
                names.slug_of(desired.model_id), desired.uid, was_ready=True
            )
        except ContractError:
            return desired
        return marked or desired

    def drain(self, slug: str, error: JobError) -> bool:
        """End the waiting jobs of the model, unless it is desired (again).

        True when nothing of the model is left.
        """
        return self._recovery.drain(slug, error, lambda: self._desired_models.exists(slug))

    def _end_all(self, child: Child, error: JobError) -> None:
        """End the jobs of a model that is not desired any more.

        Load and unload jobs are ended by id: the model_id may already belong to another model.
        """
        self._recovery.settle_jobs_of(child.slug, child.worker_names, error, has_crashed=False)
        self._restarts.forget(child.slug)
        own = [child.desired.load_job, names.unload_job_id(child.desired.uid)]
        self._recovery.end_waiting(own, error)
        self.drain(child.slug, _error_for_waiting_jobs(error))

    def _handle_failed_load(self, child: Child, desired: DesiredModel) -> None:
        """Remove a model that was never ready. One that was is loaded again later."""
        error = _load_error(child.last_status)
        if error.param is None and self._may_retry(child):
            log.warning("the load is tried again with more memory", extra={"slug": child.slug})
            self._recovery.settle_jobs_of(child.slug, child.worker_names, error, has_crashed=True)
            return
        if not desired.was_ready:
            return self._give_up(child, desired, error)
        self._restarts.note_crash(child.slug, child.token)
        self._failures[child.slug] = error.message
        self._recovery.settle_jobs_of(child.slug, child.worker_names, error, has_crashed=False)
        if error.param is not None:  # files or options are at fault: the next try will fail too
            self._recovery.end_all_waiting(child.slug, _error_for_waiting_jobs(error))

    def _handle_crash(self, child: Child, desired: DesiredModel, code: int) -> None:
        how = describe_exit(code)
        error = child.killed_for or WorkerLostError(f"the worker of the model died ({how})")
        self._restarts.note_crash(child.slug, child.token)
        if not desired.was_ready and self._restarts.num_crashes(child.slug) >= MAX_DEATHS:
            error = ModelLoadError(f"the worker died while loading ({how})")
            return self._give_up(child, desired, error)
        is_of_device = code == ExitCode.DEVICE_LOST or isinstance(error, StalledOnGpuError)
        # The jobs of an engine that stalled without a reason outside of it are not retried.
        has_crashed = not isinstance(error, JobTimeoutError)
        if child.suspects is None:  # once: a repeated call would find fewer jobs
            suspects = self._recovery.suspects(child.slug, child.worker_names)
            child.suspects = suspects if has_crashed else set()
        self._recovery.settle_jobs_of(
            child.slug,
            child.worker_names,
            error,
            has_crashed=has_crashed,
            suspects=child.suspects,
            counted_as="device_losses" if is_of_device else "deaths",
        )

    def _give_up(self, child: Child, desired: DesiredModel, error: JobError) -> None:
        """Remove a model that was never ready, and end its jobs."""
        if desired.origin == "auto":  # the next request for it is answered with this for a while
            self._note_load_failure(desired, error)
        self._remove_desired(desired)
        self._end_all(child, error)

    def _remove_desired(self, desired: DesiredModel) -> None:
        try:
            self._desired_models.remove(names.slug_of(desired.model_id), desired.uid)
        except ContractError:
            log.warning("desired model cannot be read", extra={"model": desired.model_id})


def _error_for_waiting_jobs(error: JobError) -> JobError:
    """The error for waiting jobs: without the load's code and param, which are not their fault."""
    if isinstance(error, ModelUnloadedError):
        return error
    return ModelLoadError(f"the model could not be loaded: {error.message}")


def _load_error(status: WorkerStatus | None) -> JobError:
    if status is None or status.error is None:
        return ModelLoadError("the model could not be loaded")
    return JobError.from_info(status.error)
