"""A complete server: Redis launcher, API and supervisor as processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.helpers.processes import free_port
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_READY_S = 30.0


def link_models(folder: Path) -> Path:
    """A models folder with the demo model under the names in the original server's document."""
    folder.mkdir()
    for name in ("gemma-2b", "Mixtral-8x7B-Instruct-v0.1_Q4", "demo"):
        (folder / name).symlink_to(ROOT / "models" / "demo")
    for name in ("gemma-2b.gguf", "demo.gguf"):
        (folder / name).symlink_to(ROOT / "models" / "demo.gguf")
    return folder


@dataclass
class Server:
    """A running instance with its own port, state folder and Redis."""

    port: int
    folder: Path
    env: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.folder / 'state' / 'redis.sock'}?db=0"

    def start(self, name: str, module: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_all(self) -> None:
        self.start("redis", "jobs.embedded_redis.launcher")
        self.start("web", "api")
        self.start("workers", "workers.supervision.supervisor")
        wait_until(self.is_ready, f"server ready; see {self.folder}", _READY_S)

    def is_ready(self) -> bool:
        try:
            # 401: it has a keys file.
            return httpx.get(f"{self.url}/health/ready", timeout=2).status_code in (200, 401)
        except httpx.TransportError:
            return False

    def post(self, path: str, body: Any = None, model_id: str = "0", **kwargs: Any) -> Any:
        headers = {"X-Model-Id": model_id}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=120, **kwargs)

    def load(self, model: str, model_id: str = "0", **options: Any) -> None:
        body = {"llm_model_name": model, **options}
        answer = self.post("/v1/internal/model/load", body, model_id)
        assert answer.json() == {"load": "success"}, answer.text

    def unload(self, model_id: str = "0") -> None:
        answer = self.post("/v1/internal/model/unload", None, model_id)
        assert answer.json() == {"unload": "success"}, answer.text

    def processes_by_id(self) -> dict[str, dict[str, Any]]:
        answer = httpx.get(f"{self.url}/management/processes", timeout=10)
        return {entry["model_id"]: entry for entry in answer.json()["processes"]}

    def chat(self, text: str, model_id: str = "0", **fields: Any) -> Any:
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
        return self.post("/v1/chat/completions", body, model_id)

    def unload_all(self) -> None:
        for model_id in self.processes_by_id():
            self.unload(model_id)

    def stop(self) -> list[psutil.Process]:
        """Send SIGTERM to every process; returns those that had to be killed after the wait."""
        parents = [psutil.Process(p.pid) for p in self.processes.values() if p.poll() is None]
        family = parents + [child for p in parents for child in p.children(recursive=True)]
        for name in ("web", "batches", "workers", "redis"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=15)
        _, alive = psutil.wait_procs(family, timeout=5)
        for survivor in alive:
            survivor.kill()
        return alive


def make_server(**env: str) -> Server:
    folder = Path(tempfile.mkdtemp(prefix="mgs-acc-", dir="/tmp"))
    port = free_port()
    settings = {
        "MGS_PORT": str(port),
        "MGS_STATE_DIR": str(folder / "state"),
        "MGS_MODELS_DIR": str(link_models(folder / "models")),
        "MGS_FAKE_ENGINE": "1",
        "PYTHONPATH": str(ROOT),
        **env,
    }
    kept = {k: v for k, v in os.environ.items() if not re.match(r"MGS_|REDIS_URL", k)}
    return Server(port, folder, {**kept, **settings})
