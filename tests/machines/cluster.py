"""Two machines and a third with Redis, and what can happen to each of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from jobs.embedded_redis.binary import find_redis_binary
from jobs.storage import names
from tests.helpers.driver import Driver
from tests.helpers.netns import Host as Place
from tests.helpers.netns import network
from tests.helpers.waiting import wait_until
from tests.machines.machine import PARTS, Machine
from tests.machines.muting import PlaceProxy

REDIS_PORT = 6379
_BID_S = 30


class RedisMachine:
    """Redis with a password on the network; this test reaches it by its socket."""

    def __init__(self, place: Place, folder: Path) -> None:
        password = self._password = secrets.token_hex(8)
        self.socket = folder / "redis.sock"
        self.url = self.url_at(place.address, REDIS_PORT)
        self.local_url = f"unix://:{password}@{self.socket}?db=0"
        flags = f"--bind {place.address} --port {REDIS_PORT} --unixsocket {self.socket}"
        flags += f" --requirepass {password} --dir {folder} --appendonly no"
        command = [str(find_redis_binary().path), *flags.split(), "--save", ""]
        with (folder / "redis.log").open("ab") as log:
            self._process = place.start(command, stdout=log, stderr=log)
        wait_until(self._answers, "Redis answers")

    def url_at(self, address: str, port: int) -> str:
        """What reaches it by another way."""
        return f"redis://:{self._password}@{address}:{port}/0"

    def stop(self) -> None:
        """As on a machine that swaps: connections stay, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End of ``stop``."""
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.local_url, protocol=2) as client:
                return bool(client.ping())
        except RedisError:
            return False


class Cluster:
    """The machines ``a`` and ``b``, with nothing started but Redis.

    ``env`` are settings of everybody. ``muted`` is a part of A whose way to Redis can be muted.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        hostnames: tuple[str, str],
        muted: str,
        env: dict[str, str],
    ) -> None:
        # Not tmp_path: a unix socket's path is at most 104 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="mgs-two-", dir="/tmp"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "models").mkdir()
        ports = [f"{name}-{part}" for name in "ab" for part in PARTS]
        far, *places = stack.enter_context(network("redis", *ports))
        self.redis = RedisMachine(far, self.folder)
        self.driver = Driver(self.redis.local_url, self.folder)
        stack.callback(self.driver.close)
        self._env = env
        self.muting: PlaceProxy | None = None
        parts = dict(zip(PARTS, places, strict=False))
        urls = dict.fromkeys(PARTS, self.redis.url)
        if muted:
            self.muting = PlaceProxy(self.redis.socket, parts[muted])
            self.muting.start()
            stack.callback(self.muting.stop)
            urls[muted] = self.redis.url_at("127.0.0.1", self.muting.port)
        self.a = self._machine("a", hostnames[0], parts, urls)
        stack.callback(self.a.kill)
        parts, urls = (
            dict(zip(PARTS, places[3:], strict=True)),
            dict.fromkeys(PARTS, self.redis.url),
        )
        self.b = self._machine("b", hostnames[1], parts, urls)
        stack.callback(self.b.kill)

    def _machine(
        self, name: str, hostname: str, places: dict[str, Place], urls: dict[str, str]
    ) -> Machine:
        env = {
            **{k: v for k, v in os.environ.items() if not re.match(r"MGS_|REDIS_", k)},
            "MGS_FAKE_ENGINE": "1",
            "MGS_STATE_DIR": str(self.folder / name / "state"),
            "MGS_MODELS_DIR": str(self.folder / "models"),
            "MGS_REDIS_PLAIN": "1",
            **self._env,
        }
        return Machine(name, hostname, self.folder / name, places, urls, env)

    @property
    def machines(self) -> list[Machine]:
        return [self.a, self.b]

    def start(self, *machines: Machine) -> None:
        """API and supervisor of each; all when none is named."""
        for machine in machines or self.machines:
            machine.start_supervisor()
            machine.start_api()

    def start_supervisors(self) -> None:
        """Those of all machines, one after the other."""
        for machine in self.machines:
            machine.start_supervisor()

    def load_on(self, machine: Machine, name: str = "fake-20ms", model_id: str = "0") -> int:
        """Load a model where it is wanted; the worker's process.

        The machine owns the model before it is asked for, so that no other one bids.
        """
        owner_key = names.owner_key(names.slug_of(model_id))
        self.driver.redis.set(owner_key, self._owner(machine), ex=_BID_S)
        with ThreadPoolExecutor(1) as threads:
            loading = threads.submit(machine.client.load, name, model_id)
            wait_until(lambda: machine.worker(model_id), f"{machine.name} loads", 30.0)
            loading.result(60)
        return machine.worker(model_id)

    def _owner(self, machine: Machine) -> str:
        """How the machine's supervisor signs its locks."""
        uid = json.loads((machine.folder / "state" / "node.json").read_bytes())["uid"]
        node = wait_until(lambda: self.driver.desired_models.node(uid), f"{machine.name} is known")
        return f"{uid}|{node.token}"

    def tails(self, num_lines: int = 40) -> str:
        """The last words of everybody, for a failure's report."""
        return "\n".join(
            f"--- {machine.name} {part}\n" + "\n".join(machine.log(part).splitlines()[-num_lines:])
            for machine in self.machines
            for part in ("supervisor", "api")
        )


@contextlib.contextmanager
def cluster(
    hostnames: tuple[str, str] = ("mac-a", "mac-b"), muted: str = "", **env: str
) -> Iterator[Cluster]:
    """Two machines without anything started; what they said is printed when the block fails."""
    with contextlib.ExitStack() as stack:
        machines = Cluster(stack, hostnames, muted, env)
        try:
            yield machines
        except BaseException:
            print(machines.tails())
            raise
