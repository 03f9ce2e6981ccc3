"""All programs of a world, on clients whose requests the explorer carries out."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable

from jobs.storage import names
from tests.explorer.api_programs import ApiPrograms
from tests.explorer.client import CallbackRedis
from tests.explorer.fixtures import Fixtures
from tests.explorer.rules import Rules
from tests.explorer.state_fields import StateFields
from tests.explorer.supervisor_programs import SupervisorPrograms
from tests.explorer.worker_programs import WorkerPrograms


class Programs:
    """``on_script`` gets each script's text."""

    def __init__(self, rules: Rules, on_script: Callable[[str], object]) -> None:
        fixtures = Fixtures(rules, on_script)
        self._owners = (
            ApiPrograms(fixtures),
            SupervisorPrograms(fixtures),
            WorkerPrograms(fixtures),
        )
        self.clients: tuple[CallbackRedis, ...] = fixtures.clients
        self.state_fields: StateFields = fixtures.state_fields

    def by_name(self) -> dict[str, Callable[..., Hashable]]:
        """All programs by name: the public methods of the three classes."""
        return {
            name: getattr(owner, name)
            for owner in self._owners
            for name in vars(type(owner))
            if not name.startswith("_")
        }


def stop_of(channel: bytes, data: bytes) -> tuple[str, str] | None:
    """Token of the worker and id of the job, if the message is a command to stop a job."""
    prefix = names.rq_command_channel("").encode()
    if not channel.startswith(prefix):
        return None
    message = json.loads(data)
    if message["command"] != "stop-job":
        return None
    return channel.removeprefix(prefix).decode().split(".")[2], message["job_id"]
