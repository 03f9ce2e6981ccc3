"""The desired models, restored after a loss of Redis' data, and the jobs that load them."""

from __future__ import annotations

import logging
import secrets

from jobs.contract.errors import ContractError, JobNotFoundError
from jobs.contract.records import DesiredModel
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, DesiredSnapshot
from jobs.storage.store import JobStore
from jobs.storage.submitter import Submission

log = logging.getLogger(__name__)


class DesiredState:
    """The desired models as this supervisor last read them.

    A changed mark means that Redis lost its data. Then the models are restored. Heartbeats and
    locks were lost too, so missing heartbeats mean nothing for a while.
    """

    def __init__(self, desired_models: DesiredModels, contact: RedisContact) -> None:
        self._desired_models = desired_models
        self._contact = contact
        self._mark = ""
        self._known: dict[bytes, bytes] = {}

    def look(self) -> DesiredSnapshot:
        """Read the desired models. After a loss of data, restore them first."""
        mark, found = self._desired_models.marked()
        if not mark or mark != self._mark:
            if self._mark:
                log.error("redis has lost its data", extra={"desired": len(self._known)})
                self._contact.note_interruption()
            mark, found = self._desired_models.marked(self._known)
        self._mark, self._known = mark, found.raw
        return found


class LoadJobs:
    """The jobs that make workers load their models."""

    def __init__(self, store: JobStore, desired_models: DesiredModels) -> None:
        self._store = store
        self._desired_models = desired_models

    def ensure(self, slug: str, desired: DesiredModel) -> DesiredModel | None:
        """Make sure that the model has a load job that has not ended.

        Returns the model with its load job, ``None`` when it is not desired any more.
        """
        current: DesiredModel | None = desired
        if self._has_ended(desired.load_job):
            new_id = f"load-{secrets.token_hex(16)}"
            current = self._desired_models.change(slug, desired.uid, load_job=new_id)
        if current is not None:
            # The API submits the first load job too. Equal ids make it one job.
            self._store.submit(
                Submission(
                    job_id=current.load_job,
                    model_id=current.model_id,
                    request=current.load,
                    facts={"model": current.load.model_name},
                    is_background=True,
                    is_first=True,
                )
            )
        return current

    def of(self, slug: str) -> str | None:
        """Id of the current load job. Raises ``ContractError`` for an unreadable entry."""
        desired = self._desired_models.get(slug)
        return desired.load_job if desired is not None else None

    def _has_ended(self, job_id: str) -> bool:
        try:
            return self._store.record(job_id).status.is_terminal
        except JobNotFoundError:
            return False
        except ContractError:
            return True
