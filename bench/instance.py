"""A separate server for a benchmark: Redis, API and supervisor on a free port."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.measurement import BenchError
from bench.processes import family, free_port, python_path, running, wait_until_serving
from jobs.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_REDIS, _API, _SUPERVISOR = _MODULES = (
    "jobs.embedded_redis.launcher",
    "api",
    "workers.supervision.supervisor",
)
_READY_S = 60.0
_LOAD_S = 600.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A running server. ``pids``: the ids of its three processes, by module name."""

    port: int
    state_dir: Path
    pids: dict[str, int]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        return embedded_redis_url(self.state_dir)

    def load(self, model: str, model_id: str = "0", **options: Any) -> None:
        """Load a model of the models folder and wait until it is ready."""
        self._post("model/load", {"llm_model_name": model, **options}, model_id, _LOAD_S)

    def unload(self, model_id: str = "0") -> None:
        self._post("model/unload", {}, model_id, 60)

    def count_tokens(self, text: str) -> int:
        """Length of a text for the loaded model."""
        return int(self._post("token-count", {"prompt": text}, "0", 60)["length"])

    @property
    def workers(self) -> list[psutil.Process]:
        """The worker processes, one per loaded model."""
        return psutil.Process(self.pids[_SUPERVISOR]).children()

    @property
    def api_processes(self) -> list[psutil.Process]:
        return family(self.pids[_API])

    @property
    def redis_processes(self) -> list[psutil.Process]:
        return family(self.pids[_REDIS])

    @property
    def own_processes(self) -> list[psutil.Process]:
        """API, supervisor and workers: all but Redis."""
        return [*self.api_processes, *family(self.pids[_SUPERVISOR])]

    @property
    def processes(self) -> list[psutil.Process]:
        return [*self.redis_processes, *self.own_processes]

    def _post(self, path: str, body: dict[str, Any], model_id: str, timeout_s: float) -> Any:
        answer = httpx.post(
            f"{self.url}/v1/internal/{path}",
            json=body,
            headers={"X-Model-Id": model_id},
            timeout=timeout_s,
        )
        if answer.status_code != 200:
            raise BenchError(f"our server's {path} answers {answer.status_code}: {answer.text}")
        return answer.json()


@contextlib.contextmanager
def running_instance(models_dir: Path = ROOT / "models") -> Iterator[Instance]:
    """Start the three processes, wait until they are ready, and end them after the block."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mgs-bench-"))
        port = free_port()
        settings = {
            "MGS_PORT": str(port),
            "MGS_STATE_DIR": folder,
            "MGS_MODELS_DIR": str(models_dir),
            "MGS_FAKE_ENGINE": "1",
            "MGS_LOG_LEVEL": "warning",
            **python_path(ROOT),
        }
        processes = {
            module: stack.enter_context(
                running([sys.executable, "-m", module], environment=settings)
            )
            for module in _MODULES
        }
        pids = {module: process.pid for module, process in processes.items()}
        instance = Instance(port, Path(folder), pids)
        wait_until_serving(f"{instance.url}/health/ready", processes.values(), _READY_S)
        yield instance


def embedded_redis_url(state_dir: Path) -> str:
    """The URL of a state folder's Redis."""
    given: dict[str, Any] = {"REDIS_URL": None, "redis_port": None, "state_dir": state_dir}
    return Settings(**given).effective_redis_url
