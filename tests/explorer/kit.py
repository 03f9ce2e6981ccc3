"""All programs of a world, on clients that ask the explorer."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping

from jobs.storage import names
from tests.explorer.api_programs import ApiPrograms
from tests.explorer.client import AskingRedis
from tests.explorer.parts import Parts
from tests.explorer.sights import Sights
from tests.explorer.supervisor_programs import SupervisorPrograms
from tests.explorer.worker_programs import WorkerPrograms


class Kit:
    """``jobs``: how many tokens each job has, by id. ``on_script`` hears each script's text."""

    def __init__(
        self,
        jobs: Mapping[str, int],
        on_script: Callable[[str], object],
        *,
        has_one_node: bool,
        has_loads: bool,
    ) -> None:
        parts = Parts(jobs, on_script, has_one_node=has_one_node, has_loads=has_loads)
        self._owners = (ApiPrograms(parts), SupervisorPrograms(parts), WorkerPrograms(parts))
        self.clients: tuple[AskingRedis, ...] = parts.clients
        self.sights: Sights = parts.sights

    def programs(self) -> dict[str, Callable[..., Hashable]]:
        """All programs by name: the public methods of those who have any."""
        return {
            name: getattr(owner, name)
            for owner in self._owners
            for name in vars(type(owner))
            if not name.startswith("_")
        }


def stop_of(channel: bytes, data: bytes) -> tuple[str, str] | None:
    """Token of the worker and id of the job that a published command stops."""
    prefix = names.rq_command_channel("").encode()
    if not channel.startswith(prefix):
        return None
    return channel.removeprefix(prefix).decode().split(".")[2], json.loads(data)["job_id"]
