"""The services that the routes use: one object per process, kept in the app's state."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request

from api.admin.monitoring.readiness import ReadinessProbe
from api.execution.presence import ApiHeartbeat
from api.execution.runner import JobRunner
from jobs.catalog.catalog import Catalog, read_catalog
from jobs.catalog.disk_facts import DiskFactsReader
from jobs.files.store import FileStore
from jobs.keys.caller import Caller
from jobs.keys.key_ring import KeyRing
from jobs.settings import Settings
from jobs.storage.connection import AsyncRedis, connect, connect_async
from jobs.storage.contact import RedisContact
from jobs.storage.desired_models import DesiredModels, LoadedModel
from jobs.storage.store import JobStore
from jobs.stream.hub import EventHub


@dataclass(frozen=True)
class Services:
    """The services of one API process.

    ``store``, ``desired_models``, ``disk_facts`` and ``files`` are synchronous: call them in a
    thread.
    """

    settings: Settings
    redis: AsyncRedis
    subscriber: AsyncRedis
    hub: EventHub
    store: JobStore
    desired_models: DesiredModels
    runner: JobRunner
    heartbeat: ApiHeartbeat
    disk_facts: DiskFactsReader
    readiness: ReadinessProbe
    keys: KeyRing
    files: FileStore

    @classmethod
    def create(cls, settings: Settings) -> Services:
        """Does not connect yet: the API starts, and answers, before Redis is reachable."""
        url = settings.effective_redis_url
        redis, subscriber = connect_async(url), connect_async(url, retries=0)
        name = f"api-{secrets.token_hex(4)}"
        hub = EventHub(redis, subscriber)
        client = connect(url)
        store, desired_models = JobStore(client, settings), DesiredModels(client)
        contact = RedisContact()
        runner = JobRunner(
            store, desired_models, hub, redis, name, contact, settings.ttl_s, settings.orphan_s
        )
        heartbeat = ApiHeartbeat(redis, name, settings.orphan_s, contact)
        facts = DiskFactsReader(settings.state_dir / "model-facts.json")
        probe = ReadinessProbe(url)
        keys = KeyRing(settings)
        files = FileStore(settings, client)
        return cls(
            settings,
            redis,
            subscriber,
            hub,
            store,
            desired_models,
            runner,
            heartbeat,
            facts,
            probe,
            keys,
            files,
        )

    @property
    def caller(self) -> Caller:
        """Whose request is answered."""
        return self.runner.caller_info

    def key_names(self) -> dict[str, str]:
        """The names of the keys by the ids of their callers."""
        return {caller.id: caller.name for caller in self.keys.callers}

    def catalog(self) -> Catalog:
        """The models on disk that the caller may use. Synchronous."""
        found = read_catalog(self.settings)
        return found if self.caller.has_all_models else found.only(self.caller.may_use)

    def loaded_models(self) -> list[LoadedModel]:
        """The desired models that the caller may use. Synchronous."""
        found = self.desired_models.loaded()
        return [one for one in found if self.caller.may_use(one.desired.load.model_name)]

    async def start(self) -> None:
        await self.hub.start()
        self.heartbeat.start()

    async def stop(self) -> None:
        """Cancel the jobs of disconnected clients, then close the connections."""
        await self.runner.stop()
        await self.heartbeat.stop(has_left_jobs=self.runner.readers.has_left_jobs)
        await self.hub.stop()
        self.readiness.close()
        await self.redis.aclose()
        await self.subscriber.aclose()
        self.store.redis.close()


async def get_services(request: Request) -> Services:
    """FastAPI dependency: the app's services; their runner submits jobs as the caller."""
    services: Services = request.app.state.services
    state = request.scope.get("state", {})
    caller: Caller | None = state.get("caller_info")
    if caller is None:
        return services
    runner = services.runner.for_caller(caller, state.get("rates")).with_claim(state.get("claim"))
    return replace(services, runner=runner)


ServicesDep = Annotated[Services, Depends(get_services)]
