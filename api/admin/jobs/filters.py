"""Which jobs a list shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.execution.resolve import finder_of
from api.execution.services import Services
from jobs.contract.records import JobRecord
from jobs.keys.key_ring import KeyRing
from jobs.storage import names
from jobs.storage.store import JobStore


@dataclass(frozen=True, slots=True)
class JobFilters:
    """The query of ``GET /v1/jobs``; ``None``: any."""

    model: str | None = None
    status: str | None = None
    job_class: str | None = None
    batch: str | None = None
    key: str | None = None

    async def resolve(self, services: Services) -> Callable[[JobRecord], bool]:
        """The test of a record, with the models and keys of now."""
        found = (await finder_of(services)).find_all(self.model) if self.model else []
        # An unloaded model_id has jobs, too.
        model_ids = {desired.model_id for desired in found} | {self.model}
        callers = await services.runner.in_thread(_callers, services, self.key)

        def accept(record: JobRecord) -> bool:
            return (
                not record.is_deleted
                and services.caller.may_see(record.caller)
                and (self.model is None or record.model_id in model_ids)
                and (self.status is None or record.status == self.status)
                and (self.job_class is None or record.job_class == self.job_class)
                and (self.batch is None or record.batch == self.batch)
                and (self.key is None or record.caller in callers)
            )

        return accept


def _callers(services: Services, key: str | None) -> set[str]:
    """The ids of the keys with that name, and the id itself: that of a key that is gone."""
    if key is None:
        return set()
    ring = KeyRing(services.settings)
    return {key} | {caller.id for caller in ring.callers if caller.name == key}


def live_lines(store: JobStore, batch: str) -> list[JobRecord]:
    """The batch's lines that wait or run, by line. Synchronous."""
    records: list[JobRecord] = []
    for slug in sorted(store.slugs()):
        queues = [names.batch_queue(slug), names.control_queue(slug)]
        records += store.records(store.pending_ids(slug, queues=queues))
    lines = [one for one in records if one.batch == batch and not one.status.is_terminal]
    return sorted(lines, key=lambda record: record.line)
