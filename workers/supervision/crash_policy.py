"""What a worker's death means: for its jobs, for its model, and for when it starts again."""

from __future__ import annotations

import logging

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
from workers.supervision.worker_process import Child, describe_exit

log = logging.getLogger(__name__)


class CrashPolicy:
    """Settles deaths; every call may be repeated until Redis takes it."""

    def __init__(
        self, desired_models: DesiredModels, recovery: Recovery, restarts: RestartPolicy
    ) -> None:
        self._desired_models = desired_models
        self._recovery = recovery
        self._restarts = restarts

    def settle(self, child: Child) -> None:
        """Decide from how the child ended, and from whether its model is still wanted."""
        code = child.exit_code
        assert code is not None
        desired = self._current_desired(child)
        log.info("worker ended", extra={"slug": child.slug, "how": describe_exit(code)})
        child.last_status = child.last_status or self._desired_models.statuses([child.slug]).get(
            child.slug
        )
        # Before the jobs: who hears of an unload's end must not see the process any more.
        self._desired_models.forget_status(child.slug)
        if desired is not None:  # it may have been ready since the last tick
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
            self._handle_crash(child, desired, describe_exit(code))

    def _current_desired(self, child: Child) -> DesiredModel | None:
        """The child's model if it is still desired; an entry that cannot be read may well be it."""
        try:
            desired = self._desired_models.get(child.slug)
        except ContractError:
            return child.desired
        return desired if desired is not None and desired.uid == child.desired.uid else None

    def note_ready(self, desired: DesiredModel, status: WorkerStatus | None) -> DesiredModel:
        """The desired model, marked if its worker has said that it is ready."""
        is_ready = status is not None and status.state is WorkerState.READY
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
        """End what waits for the model, unless somebody wants it (again) by now.

        True when nothing of the model is left.
        """
        return self._recovery.drain(slug, error, lambda: self._desired_models.exists(slug))

    def _end_all(self, child: Child, error: JobError) -> None:
        """The jobs of a model that is not wanted any more; what loaded and unloads it, by id.

        Its id may be another model's by now, whose jobs these are not.
        """
        self._recovery.settle_jobs_of(child.slug, child.worker_names, error, has_crashed=False)
        self._restarts.forget(child.slug)
        own = [child.desired.load_job, names.unload_job_id(child.desired.uid)]
        self._recovery.end_waiting(own, error)
        self.drain(child.slug, _error_for_waiting_jobs(error))

    def _handle_failed_load(self, child: Child, desired: DesiredModel) -> None:
        """Give up a model that has never been ready; one that was is tried again, later."""
        error = _load_error(child.last_status)
        if not desired.was_ready:
            self._remove_desired(desired)
            return self._end_all(child, error)
        self._restarts.note_crash(child.slug, child.token)
        self._recovery.settle_jobs_of(child.slug, child.worker_names, error, has_crashed=False)
        self._recovery.end_all_waiting(child.slug, _error_for_waiting_jobs(error))

    def _handle_crash(self, child: Child, desired: DesiredModel, how: str) -> None:
        error = child.killed_for or WorkerLostError(f"the worker of the model died ({how})")
        self._restarts.note_crash(child.slug, child.token)
        if not desired.was_ready and self._restarts.num_crashes(child.slug) >= MAX_DEATHS:
            self._remove_desired(desired)
            return self._end_all(child, ModelLoadError(f"the worker died while loading ({how})"))
        # A stalled engine is not tried again with the same jobs.
        has_crashed = not isinstance(error, JobTimeoutError)
        if child.suspects is None:  # once: a settling that is begun anew finds fewer jobs
            suspects = self._recovery.suspects(child.slug, child.worker_names)
            child.suspects = suspects if has_crashed else set()
        self._recovery.settle_jobs_of(
            child.slug,
            child.worker_names,
            error,
            has_crashed=has_crashed,
            suspects=child.suspects,
        )

    def _remove_desired(self, desired: DesiredModel) -> None:
        try:
            self._desired_models.remove(names.slug_of(desired.model_id), desired.uid)
        except ContractError:
            log.warning("desired model is unreadable by now", extra={"model": desired.model_id})


def _error_for_waiting_jobs(error: JobError) -> JobError:
    """What is wrong with a load is no fault of the requests that wait for its model."""
    if isinstance(error, ModelUnloadedError):
        return error
    return ModelLoadError(f"the model could not be loaded: {error.message}")


def _load_error(status: WorkerStatus | None) -> JobError:
    if status is None or status.error is None:
        return ModelLoadError("the model could not be loaded")
    return JobError.from_info(status.error)
